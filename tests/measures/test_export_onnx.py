"""The exported file answers as PyTorch does, says what it is, and runs behind the backend ``onnx``."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from exprtool.errors import DataError, ModelError, UnknownNameError, UsageError
from exprtool.faces.align import US_GAN_TEMPLATE
from exprtool.model_card import METADATA_KEY
from exprtool.types import Edit, ExportWish
from exprtool_gan.export import export as exported
from exprtool_gan.onnx_graph import generator_graph
from exprtool_onnx.generator import OnnxGenerator, open_model
from exprtool_training.data import PreparedSet
from exprtool_training.export import TOLERANCE
from exprtool_usgan.card import ModelCard
from exprtool_usgan.checkpoint import save_generator
from exprtool_usgan.config import GeneratorConfig
from exprtool_usgan.networks import Generator


def export(
    run: Path, out: Path, kind: str = "float32", *, data: PreparedSet | None = None, crops: int = 64,
    licence: str | None = None, overwrite: bool = False,
) -> SimpleNamespace:  # fmt: skip
    folders = (data.folder,) if data is not None and data.folder else ()
    done = exported(run, out, ExportWish(kind, folders, crops, licence=licence, overwrite=overwrite))
    parity = SimpleNamespace(**done.record["parity"])
    return SimpleNamespace(parity=parity, bytes=len(done.content), card=SimpleNamespace(**done.card))


LABELS = ("neutral", "happy", "sad", "angry", "surprised", "disgusted", "afraid")


def random_generator(config: GeneratorConfig) -> Generator:
    torch.manual_seed(3)
    generator = Generator(config).eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            if parameter.ndim == 1:  # norms that do something
                parameter += 0.3 * torch.randn_like(parameter)
        last = [module for module in generator.main if isinstance(module, torch.nn.Conv2d)][-1]
        last.weight *= 0.2  # a residual as large as a trained one's, not noise over the whole range
    return generator


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of the paper's layout with a quarter of its channels, for crops of 128 px."""
    path = tmp_path_factory.mktemp("model") / "quarter.safetensors"
    config = GeneratorConfig(7, channels=16)
    card = ModelCard(config, LABELS, US_GAN_TEMPLATE, licence="CC0", training_data={"images": 2312, "name": "test"})
    save_generator(path, random_generator(config), card)
    return path


@pytest.mark.parametrize(
    "config",
    [
        GeneratorConfig(3, image_size=32, channels=8, residual_blocks=0),
        GeneratorConfig(2, image_size=64, channels=4, residual_blocks=2, skip=False),
        GeneratorConfig(2, image_size=16, channels=4, tanh="after-skip"),
        GeneratorConfig(4, image_size=36, channels=4, tanh="none", clamp="always"),
        GeneratorConfig(2, image_size=32, channels=3, skip=False, tanh="none"),
    ],
)
def test_every_variant_of_the_network_is_built_alike(config: GeneratorConfig) -> None:
    import onnxruntime

    generator = random_generator(config)
    state = {name: tensor.numpy() for name, tensor in generator.state_dict().items()}
    model = generator_graph(config, state).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    side = config.image_size
    for batch in (1, 3):
        x, c = torch.rand(batch, 3, side, side) * 2 - 1, torch.rand(batch, config.labels)
        output, residual = session.run(["output", "residual"], {"image": x.numpy(), "label": c.numpy()})
        with torch.no_grad():
            assert np.abs(output - generator.edit(x, c).numpy()).max() < 1e-5
            assert np.abs(residual - generator.residual(x, c).numpy()).max() < 1e-5


def test_float32_agrees_within_the_tolerance_on_real_crops(
    checkpoint: Path, prepared: PreparedSet, tmp_path: Path
) -> None:
    done = export(checkpoint, tmp_path / "m.onnx", data=prepared, crops=12)
    assert done.parity.real and done.parity.crops == 12
    assert done.parity.largest < TOLERANCE and done.parity.levels <= 1
    # an own comparison, so that the exporter's cannot be wrong with it
    network, generator = OnnxGenerator(tmp_path / "m.onnx"), random_generator(GeneratorConfig(7, channels=16))
    x = np.ascontiguousarray(prepared.images[:4].transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1
    c = np.eye(7, dtype=np.float32)[:4]
    with torch.no_grad():
        wanted = generator.edit(torch.from_numpy(x), torch.from_numpy(c)).numpy()
    assert np.abs(network.output(x, c) - wanted).max() < TOLERANCE


def test_half_is_half_the_size_and_within_one_grey_level(
    checkpoint: Path, prepared: PreparedSet, tmp_path: Path
) -> None:
    full = export(checkpoint, tmp_path / "full.onnx", data=prepared, crops=2)
    half = export(checkpoint, tmp_path / "half.onnx", "half", data=prepared, crops=12)
    assert half.parity.levels <= 1
    assert half.parity.largest > full.parity.largest, "it is rounded"
    assert half.bytes < 0.6 * full.bytes
    assert half.card.precision == "float16"


def test_int8_is_smaller_still_and_its_loss_is_measured(
    checkpoint: Path, prepared: PreparedSet, tmp_path: Path
) -> None:
    full = export(checkpoint, tmp_path / "full.onnx", data=prepared, crops=2)
    done = export(checkpoint, tmp_path / "int8.onnx", "int8", data=prepared, crops=6)
    assert done.bytes < 0.45 * full.bytes
    assert 0 < done.parity.mean_levels < 1.5 and 38 < done.parity.psnr < 70
    with pytest.raises(DataError, match="--data"):
        export(checkpoint, tmp_path / "other.onnx", "int8")


def test_a_file_that_does_not_agree_is_not_put_in_place(
    checkpoint: Path, prepared: PreparedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exprtool_gan import onnx_graph

    monkeypatch.setattr(onnx_graph, "_EPSILON", 1e-2)
    with pytest.raises(ModelError, match="does not agree with the original"):
        export(checkpoint, tmp_path / "m.onnx", data=prepared, crops=2)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_unless_told(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"mine")
    with pytest.raises(ModelError, match="--overwrite"):
        export(checkpoint, target)
    assert target.read_bytes() == b"mine"
    done = export(checkpoint, target, crops=1, overwrite=True)
    assert not done.parity.real
    with pytest.raises(ModelError, match=r"must end in \.onnx"):
        export(checkpoint, tmp_path / "m.bin")


def test_the_card_travels_inside_the_file(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "m.onnx", crops=1, licence="CC BY 4.0")
    card = OnnxGenerator(tmp_path / "m.onnx").card
    assert card.labels == LABELS and card.size == 128 and card.template == US_GAN_TEMPLATE
    assert card.licence == "CC BY 4.0" and card.training_images == 2312
    generator = random_generator(GeneratorConfig(7, channels=16))
    assert card.parameters == sum(p.numel() for p in generator.parameters())


def without_card(checkpoint: Path, path: Path) -> Path:
    export(checkpoint, path, crops=1)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    return path


def test_a_foreign_file_is_refused_until_somebody_writes_its_card(checkpoint: Path, tmp_path: Path) -> None:
    path = without_card(checkpoint, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match=r"foreign\.toml") as caught:
        open_model(path)
    sidecar = path.with_suffix(".toml")
    sidecar.write_text(str(caught.value).partition("\n\n")[2])  # the message holds a card that can be filled in
    with pytest.raises(ModelError, match=r"'label' has shape \['batch', 7\], but its card says \(N, 2\)"):
        open_model(path)
    labels = ", ".join(f'"{label}"' for label in LABELS)
    sidecar.write_text(f'labels = [{labels}]\nsize = 128\nlicence = "CC0"\n')
    assert open_model(path).card.labels == LABELS


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": ["happy", "sad"]}, "its card says"),
        ({"size": 64}, "its card says"),
        ({"label_input": "c"}, "has no input 'c'; it has image, label"),
        ({"output": "y"}, "has no output 'y'"),
        ({"colour": "rgb"}, "unknown entries: colour"),
        ({"channels": "grey"}, "one of rgb, bgr"),
        ({"labels": ["happy"] * 7}, "each entry of the label input once"),
        ({"size": "big"}, "whole number"),
        ({"template": {"right_eye": [3, 0], "left_eye": [0.7, 0.3], "mouth": [0.5, 0.7]}}, "fractions"),
        ({"low": 1.0, "high": 0.0}, "low must be below high"),
    ],
)
def test_a_card_that_does_not_fit_says_what_to_mend(
    checkpoint: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    path = without_card(checkpoint, tmp_path / "m.onnx")
    path.with_suffix(".json").write_text(json.dumps({"labels": LABELS, "size": 128, **change}))
    with pytest.raises(ModelError, match=says):
        open_model(path)


def test_damaged_files_and_cards_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    export(checkpoint, path, crops=1)
    model = onnx.load(path)
    next(entry for entry in model.metadata_props if entry.key == METADATA_KEY).value = "{"
    onnx.save(model, path)
    with pytest.raises(ModelError, match="not JSON"):
        open_model(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot open"):
        open_model(path)
    with pytest.raises(ModelError, match="no such model file"):
        open_model(tmp_path / "none.onnx")


def test_channel_order_and_range_of_a_foreign_file_are_obeyed(tmp_path: Path) -> None:
    """A network that returns its input with the first channel set to full: in BGR in [0, 255] that is blue."""
    from onnx import TensorProto, helper, numpy_helper

    first = np.zeros((1, 3, 1, 1), np.float32)
    first[0, 0] = 1
    nodes = [
        helper.make_node("Mul", ["image", "others"], ["rest"]),
        helper.make_node("Add", ["rest", "full"], ["coloured"]),
        helper.make_node("ReduceSum", ["label", "axes"], ["one"], keepdims=1),
        helper.make_node("Unsqueeze", ["one", "places"], ["factor"]),
        helper.make_node("Mul", ["coloured", "factor"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "blue",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32]),
            helper.make_tensor_value_info("label", TensorProto.FLOAT, [1, 2]),
        ],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, 32, 32])],
        [
            numpy_helper.from_array(1 - first, "others"),
            numpy_helper.from_array(255 * first, "full"),
            numpy_helper.from_array(np.array([1]), "axes"),
            numpy_helper.from_array(np.array([2, 3]), "places"),
        ],
    )
    path = tmp_path / "blue.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    path.with_suffix(".toml").write_text(
        'labels = ["happy", "sad"]\nsize = 32\nlow = 0.0\nhigh = 255.0\nchannels = "bgr"\n'
    )
    backend = open_model(path)
    crops = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)  # a batch the graph refuses
    residual = backend.residuals(crops, {"happy": 1.0})
    assert np.allclose(crops[..., 2] + residual[..., 2], 255, atol=1e-3)
    assert np.allclose(residual[..., :2], 0, atol=1e-3)


def test_the_backend_edits_a_face_at_the_photos_own_resolution(
    checkpoint: Path, tmp_path: Path, portraits: dict[str, dict[str, bytes]]
) -> None:
    from exprtool.images import read_image
    from exprtool.pipeline import Session

    export(checkpoint, tmp_path / "m.onnx", crops=1)
    image = read_image(portraits["neutral"]["001"]).rgb
    session = Session(f"onnx:{tmp_path / 'm.onnx'}", device="cpu")
    result = session.edit_image(image, Edit({"happy": 1.0}))
    assert result.edited == 1 and result.image.shape == image.shape
    assert np.array_equal(result.image[~result.changed], image[~result.changed])
    assert (result.image != image).any()
    assert np.array_equal(session.edit_image(image, Edit({"happy": 1.0}, strength=0.0)).image, image)


def test_the_backend_refuses_what_it_does_not_know(checkpoint: Path, tmp_path: Path, prepared: PreparedSet) -> None:
    export(checkpoint, tmp_path / "m.onnx", crops=1)
    backend = open_model(tmp_path / "m.onnx")
    with pytest.raises(UnknownNameError, match=r"neutral, happy"):
        backend.residuals(np.asarray(prepared.images[:1]), {"bored": 1.0})
    from exprtool.plugins import registry

    spec = registry().backend("onnx")
    assert not spec.readiness().ready and "onnx:model.onnx" in spec.readiness().remedy
    with pytest.raises(UsageError, match=r"onnx:model\.onnx"):
        spec.load("cpu")


def test_the_export_command(checkpoint: Path, tmp_path: Path, prepared: PreparedSet) -> None:
    from typer.testing import CliRunner

    from exprtool.cli.main import app

    target = tmp_path / "m.onnx"
    arguments = ["export", str(checkpoint), "-o", str(target), "--data", str(prepared.folder), "--crops", "2"]
    done = CliRunner().invoke(app, [*arguments, "--half", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["parity"]["real"] and report["parity"]["levels"] <= 1
    import hashlib

    assert report["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert CliRunner().invoke(app, [*arguments, "--half", "--int8"]).exit_code != 0
