"""The four doors through which plugins come in, ours and a stranger's alike.

A plugin implements any of these with `exprtool.hookimpl` and names its module under the entry point group
``exprtool``. Each hook receives a ``register`` callback; the core owns the collection and refuses duplicates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:  # `import exprtool` stays cheap: the types bring numpy along
    from collections.abc import Callable

    from exprtool.types import BackendSpec, ClassifierSpec, DetectorSpec, TrainerSpec

PROJECT = "exprtool"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_backends(register: Callable[[BackendSpec], None]) -> None:
    """Register ways of giving faces an expression."""


@hookspec
def register_detectors(register: Callable[[DetectorSpec], None]) -> None:
    """Register ways of finding faces."""


@hookspec
def register_classifiers(register: Callable[[ClassifierSpec], None]) -> None:
    """Register judges that name the expression on a face."""


@hookspec
def register_trainers(register: Callable[[TrainerSpec], None]) -> None:
    """Register ways of training a network."""
