"""Masked regression and pixel-based synthesis: the fit by hand, whole runs, the file, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from exprtool.errors import DataError, ModelError, UsageError
from exprtool.types import ExportWish
from exprtool_gan import toy
from exprtool_rivals.regression import Fit, MaskedConfig, PixelConfig, Regression, export, load, open_fit
from exprtool_rivals.ridge import Sums, offsets, predict
from exprtool_training.data import PrepareOptions, ScanOptions, prepare
from exprtool_training.loop import train
from exprtool_training.run_folder import RunFolder

SIDE = 32


def naive(x: np.ndarray, t: np.ndarray, window: int, ridge: float) -> np.ndarray:
    """One channel (N, H, W): a ridge regression for each pixel, on the pixels of its window that exist."""
    n, h, w = x.shape
    reach = window // 2
    weights = np.zeros((window**2 + 1, h, w))
    for y in range(h):
        for u in range(w):
            inside = [
                (i, y + dy, u + dx)
                for i, (dy, dx) in enumerate((a, b) for a in range(-reach, reach + 1) for b in range(-reach, reach + 1))
                if 0 <= y + dy < h and 0 <= u + dx < w
            ]
            columns = np.stack([*(x[:, a, b] for _, a, b in inside), np.ones(n)], axis=1)
            solved = np.linalg.inv(columns.T @ columns + ridge * np.eye(columns.shape[1])) @ columns.T @ t[:, y, u]
            weights[[*(i for i, *_ in inside), -1], y, u] = solved
    return weights


@pytest.mark.parametrize(("window", "pairs"), [(1, 4), (3, 7), (5, 30)])
def test_sums_give_what_a_regression_for_each_pixel_gives(window: int, pairs: int) -> None:
    rng = np.random.default_rng(window)
    x, t = rng.random((pairs, 2, 6, 5)), rng.random((pairs, 2, 6, 5))
    sums = Sums.empty(window, 2, 6, 5)
    sums.add(x[:3], t[:3])  # in parts, as batches come
    sums.add(x[3:], t[3:])
    found = sums.solve(0.4)
    for channel in range(2):
        np.testing.assert_allclose(found[:, channel], naive(x[:, channel], t[:, channel], window, 0.4), atol=1e-9)
    answer = predict(found, x, window)
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    wanted = sum(found[i] * padded[..., 2 + dy : 8 + dy, 2 + dx : 7 + dx] for i, (dy, dx) in enumerate(offsets(window)))
    np.testing.assert_allclose(answer, wanted + found[-1], atol=1e-12)
    assert sums.error(found) == pytest.approx(np.sqrt(np.mean((answer - t) ** 2)), rel=1e-9)


def test_parameters_are_the_papers() -> None:
    """A weight for each pixel of a window that exists, and a constant: (3 D - 2)^2 + D^2 at r = 3."""
    rng = np.random.default_rng(0)
    for window, expected in ((3, 162_308), (1, 32_768)):
        sums = Sums.empty(window, 1, 128, 128)
        sums.add(rng.random((2, 1, 128, 128)), rng.random((2, 1, 128, 128)))
        weights = sums.solve(0.4)
        assert np.count_nonzero(weights) == expected
        assert Fit(window, True, np.repeat(weights[None].astype(np.float32), 3, 2)).parameters == 3 * expected


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people; "sad" stands for the neutral face."""
    folder = tmp_path_factory.mktemp("faces")
    toy.write_set(folder / "raw", range(12), SIDE)
    (folder / "raw" / "sad").rename(folder / "raw" / "neutral")
    options = PrepareOptions(SIDE, "centre", test_fraction=0.2)
    prepare([folder / "raw"], folder / "prepared", options, ScanOptions(), workers=1)
    return folder / "prepared"


def config(faces: Path, out: Path, kind: type[MaskedConfig] = MaskedConfig, **changes: object) -> MaskedConfig:
    tiny = {"data": (faces,), "out": out, "image_size": SIDE, "crop": "centre", "batch_size": 3, "sample_every": 0}
    return kind(**{**tiny, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [MaskedConfig, PixelConfig])
def test_a_fit_is_resumed_bit_for_bit_and_exported(kind: type[MaskedConfig], faces: Path, tmp_path: Path) -> None:
    straight = train(config(faces, tmp_path / "a", kind, stretch=False), Regression)
    assert straight.finished and straight.total > 2
    train(config(faces, tmp_path / "b", kind, stretch=False, stop_at=2), Regression)
    with pytest.raises(ModelError, match="not solved yet"):
        open_fit(tmp_path / "b")
    train(kind.from_settings({"out": tmp_path / "b", "resume": True}), Regression)
    (fit, card), (other, _) = open_fit(tmp_path / "a"), open_fit(tmp_path / "b")
    assert np.array_equal(fit.weights, other.weights) and fit.weights.any()
    assert card.labels == ("happy",) and card.training_data["source_expression"] == "neutral"
    last = RunFolder(tmp_path / "a").read_log()[-1]
    assert last["error"] < last["untouched"], "nearer to the target than the source"
    done = export(tmp_path / "a", tmp_path / "m.onnx", ExportWish(crops=4))
    assert done.record["parity"]["largest"] < 1e-4
    half = export(tmp_path / "a", tmp_path / "half.onnx", ExportWish("half", crops=4))
    assert len(half.content) < 0.7 * len(done.content)
    export(tmp_path / "a", tmp_path / "real.onnx", ExportWish(data=(faces,), crops=4))
    other = tmp_path / "other"
    shutil.copytree(faces, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["template"]["mouth"][1] += 0.1
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="Prepare the data as for the training"):
        export(tmp_path / "a", tmp_path / "other.onnx", ExportWish(data=(other,), crops=4))
    assert not (tmp_path / "other.onnx").exists()

    from exprtool_onnx.generator import open_model

    crops = np.stack([toy.draw_face(person, "sad", SIDE) for person in range(3)])
    ours, theirs = (
        backend.residuals(crops, {"happy": 1.0})
        for backend in (load(tmp_path / "a", "cpu"), open_model(tmp_path / "m.onnx"))
    )  # type: ignore[union-attr]
    np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_the_answer_is_stretched_as_the_authors_do_only_where_asked() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(-0.5, 0.6, (2, 3, 8, 8)).astype(np.float32)
    same = np.zeros((1, 2, 3, 8, 8), np.float32)
    same[:, 0] = 1  # y = x
    one = np.ones((2, 1), np.float32)
    np.testing.assert_allclose(Fit(1, False, same).picture(x, one), x, atol=1e-6)
    stretched = Fit(1, True, same).picture(x, one)
    assert stretched.min((1, 2, 3)) == pytest.approx([-1, -1]) and stretched.max((1, 2, 3)) == pytest.approx([1, 1])
    flat = np.full((1, 3, 8, 8), 0.25, np.float32)  # a plain picture has no range to stretch
    assert np.isfinite(Fit(1, True, same).picture(flat, one[:1])).all()


def test_data_without_pairs_is_refused(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no picture of 'angry'"):
        train(config(faces, tmp_path / "a", source="angry"), Regression)
    toy.write_set(tmp_path / "raw", range(8), SIDE)
    for picture in (tmp_path / "raw" / "happy").iterdir():
        picture.rename(picture.with_name(f"other{picture.stem[-4:]}.png"))
    options = PrepareOptions(SIDE, "centre", test_fraction=0.0)
    prepare([tmp_path / "raw"], tmp_path / "set", options, ScanOptions(person_pattern=r"^([a-z]+\d+)"), workers=1)
    with pytest.raises(DataError, match="pictures of one person"):
        train(config(tmp_path / "set", tmp_path / "b", source="sad"), Regression)
    with pytest.raises(UsageError, match="odd"):
        MaskedConfig(window=2)
    with pytest.raises(UsageError, match="--half"):
        export(tmp_path, tmp_path / "m.onnx", ExportWish("int8", data=(faces,)))
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_nothing_imports_torch() -> None:
    import subprocess
    import sys

    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from exprtool_rivals.regression import *; from exprtool_training.loop import train\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
