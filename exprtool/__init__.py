"""exprtool: change the expression on a face, and nothing else.

``import exprtool`` is cheap: the functions below load what they need when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from exprtool.hookspecs import hookimpl

if TYPE_CHECKING:
    from exprtool.pipeline import Session, edit_image

try:
    __version__ = version("exprtool")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["Session", "__version__", "edit_image", "hookimpl"]

_LAZY = {"Session": "exprtool.pipeline", "edit_image": "exprtool.pipeline"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'exprtool' has no attribute {name!r}")
