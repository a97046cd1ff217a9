"""exprtool: change the expression on a face, and nothing else.

``import exprtool`` is cheap: the functions below load what they need when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from exprtool.hookspecs import hookimpl

if TYPE_CHECKING:
    from exprtool.pipeline import Session, edit_image

    __version__: str

__all__ = ["Session", "__version__", "edit_image", "hookimpl"]

_LAZY = {"Session": "exprtool.pipeline", "edit_image": "exprtool.pipeline"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name == "__version__":
        return _version()
    raise AttributeError(f"module 'exprtool' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 40 ms that ``--help`` need not wait for

    try:
        return version("exprtool")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0.0.0"
