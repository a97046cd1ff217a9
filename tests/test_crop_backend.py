"""The backend around networks for aligned crops: alignment, blends, strength, what is painted, what stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exprtool.crop_backend import PAINT_TO, CropBackend, crop_answer
from exprtool.errors import UnknownNameError, UsageError
from exprtool.faces.align import US_GAN_TEMPLATE, crop, crop_from_image, invert, transform
from exprtool.faces.select import region_of
from exprtool.model_card import CropCard
from exprtool.pixels.composite import paste
from exprtool.types import Edit, Face, FacePatch

LABELS = ("neutral", "happy", "sad")


def face(centre: tuple[float, float] = (300, 220), scale: float = 1.0, angle: float = 20.0) -> Face:
    """A turned face, not in the middle of its picture."""
    turn = np.radians(angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * scale
    five = np.array([[-45.0, -38], [45, -38], [0, 0], [-30, 46], [30, 46]]) @ rotation.T + centre
    (x0, y0), (x1, y1) = five.min(0) - 30, five.max(0) + 30
    return Face((x0, y0, x1, y1), 1.0, five, roll=angle)


def picture(height: int = 480, width: int = 640) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(90, 160, (height, width, 3), dtype=np.uint8)


class Recorder:
    """A network that adds a constant per label, and remembers what it was given."""

    def __init__(self, **card: object) -> None:
        self.card = CropCard(LABELS, 64, **card)  # type: ignore[arg-type]
        self.seen: list[np.ndarray] = []
        self.asked: list[np.ndarray] = []

    def __call__(self, x: np.ndarray, c: np.ndarray) -> np.ndarray:
        self.seen.append(x.copy())
        self.asked.append(c.copy())
        step = (c @ np.array([0.0, 0.1, -0.2], dtype=np.float32))[:, None, None, None]
        answer = np.zeros_like(x)
        answer[:, 0:1] = step  # only the network's first channel
        return answer


def patch_of(network: Recorder, edit: Edit, image: np.ndarray, faces: list[Face]) -> list[FacePatch]:
    backend = CropBackend(network.card, network, batch=2)
    prepared = backend.prepare([region_of(image, each, faces) for each in faces])
    answers = backend.generate(prepared, edit)
    assert all(isinstance(answer, FacePatch) for answer in answers)
    return [answer for answer in answers if isinstance(answer, FacePatch)]


def test_the_network_sees_the_aligned_crop():
    network, image, one = Recorder(), picture(), face()
    patch_of(network, Edit({"happy": 1.0}), image, [one])
    expected = crop(image, crop_from_image(one, 64, US_GAN_TEMPLATE), 64)
    assert network.seen[0].shape == (1, 3, 64, 64) and network.seen[0].dtype == np.float32
    seen = (network.seen[0][0].transpose(1, 2, 0) + 1) * 127.5
    assert np.abs(seen - expected).max() <= 1.01
    assert network.asked[0].tolist() == [[0, 1, 0]]


def test_residual_reaches_the_photo_in_its_own_units_and_nothing_else_changes():
    network, image, one = Recorder(), picture(), face()
    (patch,) = patch_of(network, Edit({"happy": 1.0}), image, [one])
    region = region_of(image, one)
    result, changed = paste(image, [region], [patch])
    difference = result.astype(int) - image
    middle = tuple(np.round(one.landmarks5[2]).astype(int)[::-1])
    assert difference[middle].tolist() == [13, 0, 0]  # 0.1 of [-1, 1] is 12.75 grey levels, in red alone
    corners = transform(
        invert(crop_from_image(one, 64)), np.array([[-0.5, -0.5], [63.5, -0.5], [63.5, 63.5], [-0.5, 63.5]])
    )
    (x0, y0), (x1, y1) = np.floor(corners.min(0)), np.ceil(corners.max(0))
    outside = np.ones(image.shape[:2], dtype=bool)
    outside[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1] = False
    assert not difference[outside].any() and not changed[outside].any()


def test_strength_and_weights_scale_and_blends_add():
    image, one = picture(), face()

    def red(edit: Edit) -> int:
        (patch,) = patch_of(Recorder(), edit, image, [one])
        result, _ = paste(image, [region_of(image, one)], [patch])
        y, x = np.round(one.landmarks5[2]).astype(int)[::-1]
        return int(result[y, x, 0]) - int(image[y, x, 0])

    assert red(Edit({"happy": 1.0}, strength=0.5)) == 6
    assert red(Edit({"happy": 0.5})) == 6
    assert red(Edit({"sad": 1.0})) in (-25, -26)
    assert red(Edit({"happy": 1.0, "sad": 0.5})) == 0
    assert red(Edit({"happy": 1.0}, strength=0.0)) == 0


def test_strength_zero_keeps_every_bit():
    image, one = picture(), face()
    (patch,) = patch_of(Recorder(), Edit({"happy": 1.0}, strength=0.0), image, [one])
    assert not patch.alpha.any()


def test_range_and_channel_order_of_the_card():
    network, image, one = Recorder(low=0.0, high=1.0, channels="bgr"), picture(), face()
    (patch,) = patch_of(network, Edit({"happy": 1.0}), image, [one])
    expected = crop(image, crop_from_image(one, 64, US_GAN_TEMPLATE), 64)
    assert np.abs(network.seen[0][0].transpose(1, 2, 0)[..., ::-1] * 255 - expected).max() <= 1.01
    result, _ = paste(image, [region_of(image, one)], [patch])
    y, x = np.round(one.landmarks5[2]).astype(int)[::-1]
    red, green, blue = result[y, x].astype(int) - image[y, x]
    assert (red, green) == (0, 0) and blue in (25, 26)  # a tenth of 255, in the first of BGR


def test_faces_are_worked_on_in_batches():
    network, image = Recorder(), picture()
    faces = [face((150 + 80 * i, 200), 0.5) for i in range(5)]
    patches = patch_of(network, Edit({"happy": 1.0}), image, faces)
    assert [len(x) for x in network.seen] == [2, 2, 1]
    assert len(patches) == 5


def test_a_face_at_the_photos_edge():
    network, image = Recorder(), picture(200, 300)
    (patch,) = patch_of(network, Edit({"sad": 1.0}), image, [face((20, 30))])
    assert patch.pixels.shape == region_of(image, face((20, 30))).pixels.shape
    assert np.isfinite(network.seen[0]).all()


def test_what_is_new_is_painted_and_what_is_kept_is_added():
    pixels = np.full((64, 64, 3), 100, dtype=np.uint8)
    residual = np.full((64, 64, 3), 10, dtype=np.float32)
    assert crop_answer(pixels, residual).paint is None
    residual[40:56, 20:44] = PAINT_TO + 30
    answer = crop_answer(pixels, residual)
    assert answer.paint is not None and answer.paint_mask is not None
    assert answer.paint_mask[48, 32] == 1 and answer.paint_mask[10, 10] == 0
    assert answer.paint[48, 32].tolist() == [226, 226, 226]


def test_what_it_cannot_do_is_refused():
    image, one, network = picture(), face(), Recorder()
    with pytest.raises(UnknownNameError, match="neutral, happy, sad"):
        patch_of(network, Edit({"angry": 1.0}), image, [one])
    with pytest.raises(UsageError, match="no controls"):
        patch_of(network, Edit(controls={"jawOpen": 0.4}), image, [one])
    assert not network.seen


def test_usgan_end_to_end_on_a_photo(shared: Path, tmp_path: Path):
    """A checkpoint whose network adds a known amount; `exprtool edit` takes it from the card to the saved photo."""
    torch = pytest.importorskip("torch")
    from typer.testing import CliRunner

    from exprtool.cli.main import app
    from exprtool.images import read_image
    from exprtool_usgan.card import ModelCard
    from exprtool_usgan.checkpoint import save_generator
    from exprtool_usgan.config import GeneratorConfig
    from exprtool_usgan.networks import Generator

    generator = Generator(GeneratorConfig(2, 64, channels=4))
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.zero_()
        generator.main[-4].bias.fill_(1.0)  # the last norm's offset: every feature is 1 everywhere ...
        generator.main[-2].weight[:, :, 3, 3] = 0.05  # ... and each colour gets tanh(4 * 0.05)
    card = ModelCard(generator.config, ("happy", "sad"), US_GAN_TEMPLATE)
    save_generator(tmp_path / "model.safetensors", generator, card)
    photo, out = shared / "photos" / "pexels_neutral.jpeg", tmp_path / "out.png"
    arguments = ["edit", str(photo), "--expr", "happy", "--backend", f"usgan:{tmp_path / 'model.safetensors'}"]
    result = CliRunner().invoke(app, [*arguments, "-o", str(out)])
    assert result.exit_code == 0, result.output
    before, after = read_image(photo).rgb.astype(int), read_image(out).rgb.astype(int)
    difference = after - before
    expected = np.tanh(0.2) * 127.5
    assert np.abs(difference).max() <= round(expected) + 1
    assert (np.abs(difference - expected).max(axis=2) < 1).mean() > 0.02
    assert (difference == 0).all(axis=2).mean() > 0.3


def test_the_packages_own_us_gan_needs_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`--backend usgan` as it is after pip install: other expressions change other places, the rest keeps its bits."""
    import sys

    from typer.testing import CliRunner

    from exprtool.cli.main import app

    monkeypatch.setitem(sys.modules, "torch", None)  # importing it raises ImportError
    photo = Path(__file__).resolve().parents[1] / "examples" / "astronaut.jpg"
    changed = {}
    for name in ("happy", "surprised", "neutral"):
        out = tmp_path / f"{name}.png"
        result = CliRunner().invoke(app, ["edit", str(photo), "--expr", name, "--backend", "usgan", "-o", str(out)])
        assert result.exit_code == 0, result.output
        before, after = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (photo, out))
        changed[name] = np.abs(after - before).max(axis=2)
        assert (changed[name] == 0).mean() > 0.5
    assert changed["happy"].max() > 40 and changed["surprised"].max() > 60
    assert np.abs(changed["happy"] - changed["surprised"]).max() > 40
    assert changed["neutral"].mean() < 0.7 * changed["surprised"].mean()
