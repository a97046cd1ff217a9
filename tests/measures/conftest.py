"""Small data sets of real faces, made once for all tests in this folder."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from exprtool_training.data import PreparedSet, prepare

PEOPLE = ("001", "002", "004", "016", "019", "020")


def _small_photo(path: Path, side: int = 320) -> bytes:
    """The middle of a portrait, scaled down, so that finding its face takes no time."""
    with Pillow.open(path) as photo:
        width, height = photo.size
        edge = min(width, height)
        left, top = (width - edge) // 2, (height - edge) // 2
        small = photo.convert("RGB").crop((left, top, left + edge, top + edge)).resize((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def portraits(shared: Path) -> dict[str, dict[str, bytes]]:
    """JPEG bytes of real portraits: {"neutral": {"001": ...}, "happy": {...}}, six people."""
    return {
        expression: {
            person: _small_photo(shared / "faces" / "london" / expression / f"{person}.jpg") for person in PEOPLE
        }
        for expression in ("neutral", "happy")
    }


@pytest.fixture(scope="session")
def faces_root(portraits: dict[str, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per expression, under the names that KDEF's folders have."""
    root = tmp_path_factory.mktemp("roots") / "faces"
    for name, expression in (("NE", "neutral"), ("HA", "happy")):
        (root / name).mkdir(parents=True)
        for person, data in portraits[expression].items():
            (root / name / f"{person}.jpg").write_bytes(data)
    return root


@pytest.fixture(scope="session")
def prepared(faces_root: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """Twelve aligned crops of 128 px with landmarks; two people held out."""
    from exprtool_training.data import PrepareOptions

    out = tmp_path_factory.mktemp("prepared") / "london"
    return prepare([faces_root], out, PrepareOptions(test_fraction=0.3), workers=1)


@pytest.fixture
def drawing() -> Callable[..., bytes]:
    """PNG bytes of a picture that shows no face: a disc on a ground, different for every seed."""

    def draw(seed: int, size: tuple[int, int] = (64, 64)) -> bytes:
        rng = np.random.default_rng(seed)
        height, width = size
        y, x = np.mgrid[:height, :width]
        picture = np.full((height, width, 3), rng.integers(0, 255, 3), dtype=np.uint8)
        disc = (x - rng.integers(10, width - 10)) ** 2 + (y - rng.integers(10, height - 10)) ** 2 < 100
        picture[disc] = rng.integers(0, 255, 3)
        buffer = io.BytesIO()
        Pillow.fromarray(picture).save(buffer, "PNG")
        return buffer.getvalue()

    return draw
