"""Work spread over processes: a bounded number of items under way, and no worker that outlives whoever started it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from exprtool.devices import usable_cpus
from exprtool.errors import DataError, ExprtoolError

Key = TypeVar("Key")
Item = TypeVar("Item")
Answer = TypeVar("Answer")

_PENDING_PER_WORKER = 3
_THREADS = "OMP_NUM_THREADS"


def over_items(
    items: Mapping[Key, Item],
    factory: Callable[..., Callable[[Item], Answer]],
    args: tuple[Any, ...],
    *,
    workers: int | None = None,
    few: int = 1,
) -> Iterator[tuple[Key, Answer]]:
    """Yield (key, answer) for every item, as they are finished.

    ``factory(*args)`` is called once per process and makes the function that is called with each item; factory,
    arguments, items and answers must pickle. Fewer than ``few`` items per worker are not worth a process: the work is
    then done in fewer, or in this one. ``workers`` None is one per processor. Raises `DataError` when a process dies,
    and what ``factory`` raises where that is an `ExprtoolError`: weights that are missing, say.
    """
    if not items:
        return
    count = min(workers or usable_cpus(), max(1, len(items) // few))
    if count == 1:
        function = factory(*args)
        for key, item in items.items():
            yield key, function(item)
        return
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_start, initargs=(factory, args))
    try:
        under_way: dict[Future[Answer], Key] = {}
        queue = iter(items.items())
        while True:
            # Only a window of items is handed out, so that memory stays flat however many there are.
            while len(under_way) < _PENDING_PER_WORKER * count and (following := next(queue, None)) is not None:
                with _one_thread_each():
                    under_way[pool.submit(_work, following[1])] = following[0]
            if not under_way:
                break
            finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
            for future in finished:
                yield under_way.pop(future), future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "A worker process died (out of memory, killed, or started by a script without "
            '`if __name__ == "__main__":`). What is done is kept: run it again, perhaps with fewer --workers.'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started here compute with one thread: the processes are the parallelism.

    Set within them it would come too late: unpickling their first task imports NumPy, whose BLAS makes its threads
    there and then. Two processes with two threads each take twice the time of two with one.
    """
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_THREADS]
        else:
            os.environ[_THREADS] = before


_function: Callable[[Any], Any] | None = None
_obstacle: list[ExprtoolError] = []
"""Why a worker cannot work, if it cannot."""


def _start(factory: Callable[..., Callable[[Any], Any]], args: tuple[Any, ...]) -> None:
    global _function
    end_with_parent()
    try:
        _function = factory(*args)
    except ExprtoolError as error:  # raised here, it would reach the user as a process that died
        _obstacle.append(error)


def _work(item: Any) -> Any:
    if _obstacle:
        raise _obstacle[0]
    assert _function is not None
    return _function(item)


def end_with_parent() -> None:
    """Call in a worker process, first thing: ends it as soon as its parent is gone, be it by kill -9.

    A pool's workers would else sit on their queue for ever: each holds the writing end of it open for the others.
    Does nothing in a process that is nobody's worker. What is half done is lost, so outputs must appear whole.
    """
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int = parent.sentinel) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
