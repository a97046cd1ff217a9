"""Where imported checkpoints lie, by name. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from exprtool.weights.catalogue import models_dir

_SUFFIX = ".safetensors"


def imported_folder() -> Path:
    """The folder of imported weights in the user's cache."""
    return models_dir() / "usgan"


def imported_files() -> dict[str, Path]:
    """Imported weights by name, in alphabetical order."""
    return {path.stem: path for path in sorted(imported_folder().glob(f"*{_SUFFIX}"))}
