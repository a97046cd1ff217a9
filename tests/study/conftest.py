"""A small study of drawn faces."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from exprtool.study.design import Item, make_study
from exprtool.study.page import study_page

METHODS = ("US-GAN", "StarGAN", "STGAN", "GANimation")


def picture(seed: int, side: int = 24) -> np.ndarray:
    """Soft colours that differ with the seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    return (np.stack([x, y, 1 - x], -1) * rng.uniform(60, 250, 3)).astype(np.uint8)


def item(number: int, methods: tuple[str, ...] = METHODS, expression: str = "sad") -> Item:
    return Item(
        f"face-{number:02d}",
        expression,
        picture(100 * number),
        {method: picture(100 * number + 1 + i) for i, method in enumerate(methods)},
    )


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """18 faces by 4 methods with 2 attention checks, as files: ``page``, ``key_file``; and ``key`` as it was read."""
    folder = tmp_path_factory.mktemp("study")
    made = make_study([item(n) for n in range(18)], checks=[item(n) for n in (50, 51)], seed=3, title="Faces & more")
    (folder / "study.html").write_text(study_page(made), "utf-8")
    (folder / "study.key.json").write_text(json.dumps(made.key()), "utf-8")
    return SimpleNamespace(
        made=made, key=made.key(), page=folder / "study.html", key_file=folder / "study.key.json", folder=folder
    )
