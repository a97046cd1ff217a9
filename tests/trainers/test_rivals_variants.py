"""StarGAN, SARGAN and the gated skip: networks counted, one run each from data to file, and what goes through where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exprtool.errors import ModelError, UnknownNameError  # noqa: E402
from exprtool.plugins import registry  # noqa: E402
from exprtool.types import ExportWish  # noqa: E402
from exprtool_gan import toy  # noqa: E402
from exprtool_gan.config import TrainConfig  # noqa: E402
from exprtool_gan.onnx_graph import generator_graph  # noqa: E402
from exprtool_rivals.variants import GatedConfig, SarganConfig, StarGanConfig, load, run_method  # noqa: E402
from exprtool_training.data import PrepareOptions, ScanOptions, prepare  # noqa: E402
from exprtool_training.loop import train  # noqa: E402
from exprtool_usgan.config import DiscriminatorConfig, GeneratorConfig  # noqa: E402
from exprtool_usgan.networks import Discriminator, Generator, count_parameters  # noqa: E402


@pytest.mark.parametrize(
    ("config", "labels", "expected"),
    [
        (TrainConfig(), 7, 2_533_440),
        (TrainConfig(residual_blocks=6), 7, 8_436_800),
        (TrainConfig(residual_blocks=0), 7, 1_352_768),
        (TrainConfig(skip=False), 7, 2_533_440),
        (StarGanConfig(), 7, 8_436_800),
        (StarGanConfig(), 5, 8_430_528),
        (StarGanConfig(), 8, 8_439_936),
        (SarganConfig(), 7, 3_014_145),
        (GatedConfig(), 7, 2_533_440 + 64 * 49 + 1),
    ],
)
def test_parameters_are_the_papers(config: TrainConfig, labels: int, expected: int) -> None:
    with torch.device("meta"):
        assert count_parameters(Generator(config.generator(labels))) == expected


def test_the_discriminator_counts_as_published() -> None:
    with torch.device("meta"):
        counts = {c: count_parameters(Discriminator(DiscriminatorConfig(c))) for c in (7, 8)}
    assert counts == {7: 44_778_432, 8: 44_786_624}
    assert counts[8] + 8_439_936 == 53_226_560, "StarGAN's own 53.2M"


def shaken(config: GeneratorConfig) -> Generator:
    torch.manual_seed(1)
    generator = Generator(config).eval()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return generator


@pytest.mark.parametrize("change", [{"attention": True}, {"gate": True}, {"attention": True, "residual_blocks": 2}])
def test_the_file_answers_as_the_network(change: dict[str, object]) -> None:
    import onnxruntime

    config = GeneratorConfig(3, image_size=32, channels=4, **change)  # type: ignore[arg-type]
    generator = shaken(config)
    graph = generator_graph(config, {name: tensor.numpy() for name, tensor in generator.state_dict().items()})
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    x, c = torch.rand(2, 3, 32, 32) * 2 - 1, torch.eye(3)[:2]
    output, residual = session.run(["output", "residual"], {"image": x.numpy(), "label": c.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(output, generator.edit(x, c).numpy(), atol=3e-5)
        np.testing.assert_allclose(residual, generator.residual(x, c).numpy(), atol=3e-5)


def test_a_gate_begins_open_and_closed_lets_nothing_through() -> None:
    generator = shaken(GeneratorConfig(2, image_size=16, channels=4, gate=True))
    x, c = torch.rand(1, 3, 16, 16), torch.eye(2)[:1]
    with torch.no_grad():
        for bias, passes in ((20.0, 1.0), (-20.0, 0.0)):
            generator.gate.weight.zero_()  # type: ignore[union-attr]
            generator.gate.bias.fill_(bias)  # type: ignore[union-attr]
            h = generator.main(generator._with_maps(x, c))
            torch.testing.assert_close(generator(x, c), h + passes * x)
    fresh = Generator(GeneratorConfig(2, image_size=16, channels=4, gate=True))
    assert torch.sigmoid(fresh.gate.bias) > 0.98 and not fresh.gate.weight.any()  # type: ignore[union-attr]


def test_attention_weighs_what_the_block_adds() -> None:
    generator = shaken(GeneratorConfig(2, image_size=32, channels=4, attention=True))
    block = generator.main[9]
    h = torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        block.mask.out.weight.zero_()  # type: ignore[union-attr]
        for bias, weight in ((0.0, 0.5), (-30.0, 0.0)):
            block.mask.out.bias.fill_(bias)  # type: ignore[union-attr]
            torch.testing.assert_close(block(h), h + weight * block.main(h))  # type: ignore[operator]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    toy.write_set(folder / "raw", range(10))
    options = PrepareOptions(32, "centre", test_fraction=0.2)
    prepare([folder / "raw"], folder / "prepared", options, ScanOptions(), workers=1)
    return folder / "prepared"


@pytest.mark.parametrize("kind", [StarGanConfig, SarganConfig, GatedConfig])
def test_trained_found_again_and_exported(kind: type[TrainConfig], faces: Path, tmp_path: Path) -> None:
    tiny = dict(
        data=(faces,), out=tmp_path / "run", image_size=32, channels=4, d_channels=4, d_layers=3, batch_size=4,
        d_steps=2, steps=4, device="cpu", sample_every=0, look_every=0, tensorboard=False,
    )  # fmt: skip
    torch.set_num_threads(1)
    assert train(kind(**tiny), run_method).finished  # type: ignore[arg-type]
    spec = registry().trainer_of(tmp_path / "run")
    assert spec.name == kind.trainer and spec.config() is kind and spec.export is not None
    done = spec.export(tmp_path / "run", tmp_path / "m.onnx", ExportWish(crops=2))
    assert done.record["parity"]["largest"] < 1e-4
    architecture = {"stargan": "stargan", "sargan": "sargan", "gated": "us-gan with a gated skip"}[kind.trainer]
    if kind is StarGanConfig:
        assert done.card["skip"] is False and done.card["residual_blocks"] == 6
    assert done.card["architecture"] == architecture
    backend = registry().backend(kind.trainer)
    assert backend.load_from is not None
    crop = toy.draw_face(30, "sad")[None]
    ours = backend.load_from("cpu", str(tmp_path / "run")).residuals(crop, {"happy": 1.0})  # type: ignore[attr-defined]
    np.testing.assert_array_equal(ours, load(tmp_path / "run", "cpu").residuals(crop, {"happy": 1.0}))
    with pytest.raises(ModelError, match="no run of the trainer"):
        backend.load_from("cpu", str(tmp_path))
    assert spec.own_head is not None and spec.own_head(tmp_path / "run").labels == toy.EXPRESSIONS
    resumed = kind.from_settings({"out": tmp_path / "run", "resume": True, "steps": 6})
    assert isinstance(resumed, kind) and train(resumed, run_method).step == 6


def test_unknown_rivals_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="stargan"):
        registry().trainer("stargun")
