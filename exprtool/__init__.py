"""exprtool: change the expression on a face, and nothing else.

``import exprtool`` is cheap: the functions below load what they need when they are first used.
"""

import sys

_words = zip(sys.orig_argv, (*sys.orig_argv[1:], ""), strict=True)
if (
    sys.argv[:1] == ["-m"]  # as it is while Python looks for what it was told to run
    and any(first == "-mexprtool" or (first[:1], first[-1:], then) == ("-", "m", "exprtool") for first, then in _words)
    and not sys.flags.safe_path
):
    # ``python -m exprtool`` puts the current folder before everything else that can be imported. It may hold anybody's
    # files: what they are called must not decide what is run.
    del sys.path[0]

from importlib import import_module  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

from exprtool.hookspecs import hookimpl  # noqa: E402

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
