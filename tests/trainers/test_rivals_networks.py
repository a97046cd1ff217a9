"""GANimation and STGAN: counted, their passes and losses by independent arithmetic, runs, files, imports, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from exprtool.errors import DataError, ModelError, UnknownNameError, UsageError  # noqa: E402
from exprtool.plugins import registry  # noqa: E402
from exprtool.types import ExportWish  # noqa: E402
from exprtool_gan import losses, toy  # noqa: E402
from exprtool_rivals import ganimation, stgan  # noqa: E402
from exprtool_rivals.aus import AUS, check_units, table_of, units_of  # noqa: E402
from exprtool_rivals.networks import score_gradient  # noqa: E402
from exprtool_training.data import PrepareOptions, ScanOptions, prepare  # noqa: E402
from exprtool_training.loop import train  # noqa: E402
from exprtool_usgan.config import DiscriminatorConfig  # noqa: E402
from exprtool_usgan.networks import Discriminator, count_parameters  # noqa: E402

SIDE = 64


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_parameters_are_the_papers() -> None:
    with torch.device("meta"):
        counts = {
            "ganimation": ganimation.Generator(ganimation.GanimationNetwork(7)),
            "replicate": ganimation.Generator(ganimation.GanimationNetwork(7, affine=False)),
            "ganimation D": Discriminator(DiscriminatorConfig(17)),
            "stgan": stgan.Generator(stgan.StganNetwork(7)),
            "stgan-us": stgan.Generator(stgan.StganNetwork(7, skip=True)),
            "stgan 13": stgan.Generator(stgan.StganNetwork(13)),
            "stgan D": stgan.Discriminator(stgan.StganNetwork(7)),
            "stgan D 13": stgan.Discriminator(stgan.StganNetwork(13)),
        }
    assert {name: count_parameters(net) for name, net in counts.items()} == {
        "ganimation": 8_471_296, "replicate": 8_467_584, "ganimation D": 44_860_352, "stgan": 74_722_003,
        "stgan-us": 74_722_003, "stgan 13": 74_998_771, "stgan D": 44_712_840, "stgan D 13": 44_718_990,
    }  # fmt: skip


# --- passes by other arithmetic --------------------------------------------------------------------------------------


def conv(x: np.ndarray, w: np.ndarray, stride: int, pad: int, bias: np.ndarray | None = None) -> np.ndarray:
    """A convolution by its definition: (C, H, W), (K, C, k, k) -> (K, H', W')."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    k, side = w.shape[2], (x.shape[1] - w.shape[2]) // stride + 1
    out = np.empty((len(w), side, side))
    for i in range(side):
        for j in range(side):
            patch = x[:, i * stride : i * stride + k, j * stride : j * stride + k]
            out[:, i, j] = (w * patch).sum((1, 2, 3))
    return out if bias is None else out + bias[:, None, None]


def deconv(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """A transposed 4x4 convolution of stride 2, padding 1: each input pixel lays its kernel down."""
    side = 2 * x.shape[1] + 2
    out = np.zeros((w.shape[1], side, side))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            out[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.tensordot(x[:, i, j], w, 1)
    out = out[:, 1:-1, 1:-1]
    return out if bias is None else out + bias[:, None, None]


def normed(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    mean, var = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * weight[:, None, None] + bias[:, None, None]


def told(h: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.concatenate([h, np.broadcast_to(values[:, None, None], (len(values), *h.shape[1:]))])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def shaken(net: Any) -> tuple[Any, dict[str, np.ndarray]]:
    torch.manual_seed(2)
    net = net.double().eval()
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.add_(0.2 * torch.randn_like(tensor))
        for name, tensor in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                tensor.copy_(0.5 + torch.rand_like(tensor))
    return net, {name: tensor.numpy() for name, tensor in net.state_dict().items()}


def test_ganimations_pass_by_its_definition() -> None:
    net, w = shaken(ganimation.Generator(ganimation.GanimationNetwork(2, 8, channels=2, residual_blocks=1)))
    rng = np.random.default_rng(0)
    x, units = rng.uniform(-1, 1, (3, 8, 8)), rng.random(17)

    def block(h: np.ndarray, i: int, name: str = "main", relu: bool = True) -> np.ndarray:
        h = normed(h, w[f"{name}.{i + 1}.weight"], w[f"{name}.{i + 1}.bias"])
        return np.maximum(h, 0) if relu else h

    h = block(conv(told(x, units), w["main.0.weight"], 1, 3), 0)
    h = block(conv(h, w["main.3.weight"], 2, 1), 3)
    h = block(conv(h, w["main.6.weight"], 2, 1), 6)
    inner = block(conv(h, w["main.9.main.0.weight"], 1, 1), 0, "main.9.main")
    h = h + block(conv(inner, w["main.9.main.3.weight"], 1, 1), 3, "main.9.main", relu=False)
    h = block(deconv(h, w["main.10.weight"]), 10)
    h = block(deconv(h, w["main.13.weight"]), 13)
    kept = sigmoid(conv(h, w["attention.weight"], 1, 3))
    wanted = kept * x + (1 - kept) * np.tanh(conv(h, w["colour.weight"], 1, 3))
    with torch.no_grad():
        y, attention = net(torch.from_numpy(x)[None], torch.from_numpy(units)[None])
    np.testing.assert_allclose(attention[0].numpy(), kept, atol=1e-10)
    np.testing.assert_allclose(y[0].numpy(), wanted, atol=1e-10)


@pytest.mark.parametrize("skip", [False, True])
def test_stgans_pass_by_its_definition(skip: bool) -> None:
    net, w = shaken(stgan.Generator(stgan.StganNetwork(2, 32, channels=1, skip=skip)))
    rng = np.random.default_rng(1)
    x, d = rng.uniform(-1, 1, (3, 32, 32)), np.array([-1.0, 1.0])

    def batch_normed(h: np.ndarray, key: str) -> np.ndarray:
        mean, var = w[f"{key}.running_mean"], w[f"{key}.running_var"]
        h = (h - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-3)
        return h * w[f"{key}.weight"][:, None, None] + w[f"{key}.bias"][:, None, None]

    maps, h = [], x
    for i in range(5):
        h = batch_normed(conv(h, w[f"encoder.{i}.0.weight"], 2, 1), f"encoder.{i}.1")
        h = np.where(h > 0, h, 0.2 * h)
        maps.append(h)
    state = h = told(maps[-1], d)
    for i, f in enumerate(maps[-2::-1]):
        u = deconv(state, w[f"units.{i}.up.weight"], w[f"units.{i}.up.bias"])

        def gate(name: str, *inputs: np.ndarray, i: int = i) -> np.ndarray:
            key = f"units.{i}.{name}"
            return conv(np.concatenate(inputs), w[f"{key}.weight"], 1, 1, w[f"{key}.bias"])

        s = sigmoid(gate("reset", f, u)) * u
        z = sigmoid(gate("update", f, u))
        passed = (1 - z) * u + z * np.tanh(gate("info", f, s))
        state = told(s, d)
        up = np.maximum(batch_normed(deconv(h, w[f"decoder.{i}.0.weight"]), f"decoder.{i}.1"), 0)
        h = told(np.concatenate([up, passed]), d)
    wanted = np.tanh(deconv(h, w["last.weight"], w["last.bias"])) + (x if skip else 0)
    with torch.no_grad():
        y = net(torch.from_numpy(x)[None], torch.from_numpy(d)[None])
        codes = torch.eye(2, dtype=torch.float64)
        edited = net.edit(torch.from_numpy(x)[None], codes[[1]], codes[[0]])
    np.testing.assert_allclose(y[0].numpy(), wanted, atol=1e-10)
    np.testing.assert_allclose(edited[0].numpy(), np.clip(wanted, -1, 1), atol=1e-10)


# --- losses on numbers worked out by hand ----------------------------------------------------------------------------


def test_losses_by_hand() -> None:
    assert ganimation.unit_loss(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.zeros(2, 2)) == 0.375
    a = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    assert ganimation.total_variation(a) == 0.5 + 0.5 + 1.0 + 0.0
    logits, labels = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    assert stgan.attribute_loss(logits, labels) == pytest.approx(np.log(2))
    sharp = stgan.attribute_loss(torch.tensor([[2.0, -2.0]]), labels)
    assert sharp == pytest.approx(np.log1p(np.exp(-2.0)), rel=1e-6)


def test_the_gradient_of_any_critic_is_that_of_usgans() -> None:
    torch.manual_seed(0)
    critic = Discriminator(DiscriminatorConfig(2, 16, channels=2, layers=3)).double()
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    for found, written in zip(
        torch.autograd.grad(losses.gradient_penalty(score_gradient(critic, x)), [*critic.main.parameters()][::2]),
        torch.autograd.grad(
            losses.gradient_penalty(losses.score_gradient(critic, x)), [*critic.main.parameters()][::2]
        ),
        strict=True,
    ):
        torch.testing.assert_close(found, written)


# --- action units ----------------------------------------------------------------------------------------------------


def test_units_of_weights() -> None:
    units = dict(zip(AUS, units_of({"mouthSmileLeft": 1.0, "mouthSmileRight": 0.5, "jawOpen": 0.4}), strict=True))
    assert units["AU12"] == 0.75 and units["AU26"] == pytest.approx(0.4) and units["AU25"] == pytest.approx(0.4)
    closed = dict(zip(AUS, units_of({"jawOpen": 0.4, "mouthClose": 0.4, "browInnerUp": 0.3}), strict=True))
    assert closed["AU25"] == 0 and closed["AU01"] == pytest.approx(0.3) and closed["AU23"] == 0
    table = table_of(("neutral", "happy", "surprised"), None)
    assert table.shape == (3, 17) and not table[0].any() and table[1, AUS.index("AU12")] > 0.5


def test_units_of_the_wrong_length_or_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected 17 action units .* found 16"):
        check_units(np.zeros(16), "it")
    with pytest.raises(DataError, match=r"AU02 is 3, but units lie in \[0, 1\]"):
        check_units([0.0, 3.0, *[0.0] * 15], "it")
    with pytest.raises(DataError, match="AU01 is nan"):
        check_units([float("nan"), *[0.0] * 16], "it")
    with pytest.raises(UsageError, match="known for wink"):
        table_of(("wink",), None)
    file = tmp_path / "aus.csv"
    file.write_text(",".join(("expression", *AUS)) + "\nwink," + ",".join(["0"] * 16 + ["1"]) + "\n")
    assert table_of(("wink",), file)[0, -1] == 1
    file.write_text(",".join(("expression", *AUS[:-1])) + "\nwink," + ",".join(["0"] * 16) + "\n")
    with pytest.raises(DataError, match=r"aus.csv, line 2: expected 17"):
        table_of(("wink",), file)
    with pytest.raises(DataError, match="cannot be read"):
        table_of(("wink",), tmp_path / "none.csv")


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faces")
    toy.write_set(folder / "raw", range(10), SIDE)
    (folder / "raw" / "sad").rename(folder / "raw" / "neutral")
    options = PrepareOptions(SIDE, "centre", test_fraction=0.2)
    prepare([folder / "raw"], folder / "prepared", options, ScanOptions(), workers=1)
    return folder / "prepared"


METHODS = {
    "ganimation": (ganimation.GanimationConfig, ganimation.Ganimation, {"d_channels": 4, "d_layers": 3}),
    "stgan": (stgan.StganConfig, stgan.Stgan, {}),
    "stgan-us": (stgan.StganUsConfig, stgan.Stgan, {}),
}


@pytest.mark.parametrize("name", METHODS)
def test_trained_resumed_bit_for_bit_used_and_exported(name: str, faces: Path, tmp_path: Path) -> None:
    kind, method, more = METHODS[name]
    tiny: dict[str, Any] = dict(
        data=(faces,), image_size=SIDE, channels=2, batch_size=4, d_steps=2, steps=6, device="cpu", sample_every=6,
        look_every=6, look_images=2, tensorboard=False, ema=0.9, **more,
    )  # fmt: skip
    if name == "ganimation":
        tiny["residual_blocks"] = 1
    assert train(kind(**tiny, out=tmp_path / "a"), method).finished
    assert train(kind(**tiny, out=tmp_path / "b", stop_at=3), method).step == 3
    assert train(kind.from_settings({"out": tmp_path / "b", "resume": True, "stop_at": 0}), method).finished
    from safetensors.torch import load_file

    one, other = (load_file(tmp_path / run / "checkpoints" / "last.safetensors") for run in "ab")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert (tmp_path / "a" / "samples" / "step-000006.png").is_file()

    spec = registry().trainer_of(tmp_path / "a")
    assert spec.name == name and spec.export is not None
    done = spec.export(tmp_path / "a", tmp_path / "m.onnx", ExportWish(crops=3))
    assert done.record["parity"]["largest"] < 1e-4 and done.card["architecture"] == name
    from exprtool_onnx.generator import open_model

    backend = registry().backend(name)
    assert backend.load_from is not None
    argument = str(tmp_path / "a") + ("" if name == "ganimation" else "@neutral")
    crops = np.stack([toy.draw_face(person, "sad", SIDE) for person in range(2)])
    ours, theirs = (
        each.residuals(crops, {"happy": 1.0})  # type: ignore[union-attr]
        for each in (backend.load_from("cpu", argument), open_model(tmp_path / "m.onnx"))
    )
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert np.abs(ours).max() > 0.5


def test_stgan_must_be_told_what_a_face_wears(faces: Path, tmp_path: Path) -> None:
    config = stgan.StganConfig(
        data=(faces,), image_size=SIDE, channels=2, batch_size=4, steps=2, device="cpu", sample_every=0, look_every=0,
        tensorboard=False, out=tmp_path / "run",
    )  # fmt: skip
    train(config, stgan.Stgan)
    crops = np.stack([toy.draw_face(person, "sad", SIDE) for person in range(3)])
    silent = stgan.load(tmp_path / "run", "cpu")
    with pytest.raises(UsageError, match="@neutral"):
        silent.residuals(crops, {"happy": 1.0})
    with pytest.raises(UsageError, match="@neutral"):
        silent.residuals(crops, {"happy": 1.0}, ["neutral", None, "happy"])
    mixed = silent.residuals(crops, {"happy": 1.0}, ["neutral", "happy", "neutral"])
    for worn, i in (("neutral", 0), ("happy", 1), ("neutral", 2)):
        alone = stgan.load(tmp_path / "run", "cpu", worn).residuals(crops[[i]], {"happy": 1.0})
        np.testing.assert_allclose(mixed[[i]], alone, atol=1e-3)
    with pytest.raises(UnknownNameError, match="neutral"):
        stgan.load(tmp_path / "run", "cpu", "smug")
    ganimation_backend = registry().backend("ganimation")
    with pytest.raises(ModelError, match="no run of the trainer"):
        ganimation_backend.load_from("cpu", str(tmp_path / "run"))  # type: ignore[misc]
    with pytest.raises(UsageError, match="multiple of 32"):
        stgan.StganConfig(image_size=48)


# --- imports ---------------------------------------------------------------------------------------------------------


def published(affine: bool, units: int = 17) -> dict[str, torch.Tensor]:
    """What the authors' code saves (affine norms with running statistics), or the replicate."""
    net = ganimation.Generator(ganimation.GanimationNetwork(7, channels=4, affine=affine))
    state: dict[str, torch.Tensor] = {}
    for name, tensor in net.state_dict().items():
        if name == "table":
            continue
        if affine:
            theirs = name.replace("colour.", "img_reg.0.").replace("attention.", "attetion_reg.0.")
        else:
            theirs = name.replace("colour.", "color_top.0.").replace("attention.", "au_top.0.")
            theirs = "model." + theirs[5:].replace("main.", "conv_block.") if theirs.startswith("main.") else theirs
        state[theirs] = tensor[:, : 3 + units] if name == "main.0.weight" else tensor
        if affine and name.endswith("1.bias"):
            state[theirs.replace("bias", "running_mean")] = torch.zeros(len(tensor))
    return state


@pytest.mark.parametrize("affine", [True, False])
def test_published_weights_come_in_and_answer_the_same(affine: bool, home: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from exprtool.cli.main import app

    torch.manual_seed(5)
    state = published(affine)
    torch.save(state, tmp_path / "30_net_gen.pth")
    done = CliRunner().invoke(app, ["models", "import", str(tmp_path / "30_net_gen.pth")])
    assert done.exit_code == 0, (done.output, done.exception)
    backend = registry().backend("ganimation")
    loaded = backend.load_from("cpu", "30_net_gen")  # type: ignore[misc]
    net, card = ganimation.open_network(home / "models" / "ganimation" / "30_net_gen.safetensors", ganimation.make)
    assert card.labels == loaded.card.labels and len(card.labels) == 7  # type: ignore[attr-defined]
    assert torch.equal(net.main[0].weight, state["main.0.weight" if affine else "model.0.weight"])
    assert torch.equal(net.colour.weight, state["img_reg.0.weight" if affine else "color_top.0.weight"])


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    torch.save(published(False, units=12), tmp_path / "a.pth")
    with pytest.raises(ModelError, match="takes 12 action units"):
        ganimation.import_weights(tmp_path / "a.pth", (), tmp_path)
    torch.save({"main.0.weight": torch.zeros(4, 20, 7, 7)}, tmp_path / "b.pth")
    with pytest.raises(ModelError, match="no colour and no attention"):
        ganimation.import_weights(tmp_path / "b.pth", (), tmp_path)
    torch.save({"net": object}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match="refused"):
        ganimation.import_weights(tmp_path / "c.pth", (), tmp_path)
    damaged = published(True)
    del damaged["main.3.weight"]
    torch.save(damaged, tmp_path / "d.pth")
    with pytest.raises(ModelError, match=r"main\.3\.weight"):
        ganimation.import_weights(tmp_path / "d.pth", (), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
