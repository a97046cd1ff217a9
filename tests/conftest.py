"""Fixtures that every test file may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos, clips and models beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder of test photos, clips and models beside the checkout (../shared)")
    return SHARED


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Every test has an empty model cache of its own, so that none depends on what the user once downloaded."""
    folder = tmp_path_factory.mktemp("exprtool-home")
    monkeypatch.setenv("EXPRTOOL_HOME", str(folder))
    yield folder
