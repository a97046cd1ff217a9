"""Worker processes that do not outlive whoever started them."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Call in a worker process, first thing: ends it as soon as its parent is gone, be it by kill -9.

    A pool's workers would else sit on their queue for ever: each holds the writing end of it open for the others.
    Does nothing in a process that is nobody's worker. What is half done is lost, so outputs must appear whole.
    """
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int = parent.sentinel) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
