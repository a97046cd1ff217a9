"""Ctrl-C, a scheduler's SIGTERM and a closed terminal ask a run to finish what is at work; a second Ctrl-C ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StopRequest:
    """While active, ``event`` is set as soon as somebody asks; ``on_request`` is called once then, in a
    thread of its own.

    Signals that were ignored (by nohup, or in a shell's background) stay ignored. Outside the main thread none can be
    heard.
    """

    def __init__(self, on_request: Callable[[], None] | None = None) -> None:
        self.event = threading.Event()
        self._on_request = on_request
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        return self.event.is_set()

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if (before := signal.getsignal(number)) is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.event.set()
            if self._on_request is not None:
                # Not here: a signal may arrive within an import or a write that this would have to enter again.
                threading.Thread(target=self._on_request, name="stopping").start()
        elif number == signal.SIGINT:  # schedulers repeat theirs, a person means it
            raise KeyboardInterrupt


def interrupt_on_every_signal() -> None:
    """Have SIGTERM and SIGHUP end the process as Ctrl-C does, through every cleanup on the way; unless ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, interrupt)
