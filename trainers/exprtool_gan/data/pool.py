"""One function over many pictures, in processes, with a bounded number of them under way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from exprtool.devices import usable_cpus
from exprtool.errors import DataError
from exprtool.processes import end_with_parent
from exprtool_gan.data.sources import Source

Answer = TypeVar("Answer")

_FEW = 24
_PENDING_PER_WORKER = 4


def over_pictures(
    sources: Sequence[Source],
    todo: Sequence[int],
    factory: Callable[..., Callable[[str, str], Answer]],
    args: tuple[Any, ...],
    workers: int | None = None,
) -> Iterator[tuple[int, Answer]]:
    """Yield (index, answer) for every index in ``todo``, as they are finished.

    ``factory(*args)`` is called once per process and makes the function, which is called with (path, name) of each
    picture. A few pictures are done in this process; more are spread over ``workers`` (None: one per processor).
    Raises `DataError` when a process dies.
    """
    if not todo:
        return
    count = min(workers or usable_cpus(), max(1, len(todo) // _FEW))
    if count == 1:
        function = factory(*args)
        for i in todo:
            yield i, function(str(sources[i].path), sources[i].name)
        return
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_start, initargs=(factory, args))
    try:
        waiting: dict[Future[Answer], int] = {}
        queue = iter(todo)
        while True:
            # Only a window of pictures is handed out, so that memory stays flat however many there are.
            while len(waiting) < _PENDING_PER_WORKER * count and (i := next(queue, None)) is not None:
                waiting[pool.submit(_work, str(sources[i].path), sources[i].name)] = i
            if not waiting:
                break
            finished, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool as error:
        raise DataError(
            "A worker process died while reading pictures (out of memory, or a script without "
            '`if __name__ == "__main__":`). What is done is kept; run it again, perhaps with --workers 1.'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_function: Callable[[str, str], Any] | None = None


def _start(factory: Callable[..., Callable[[str, str], Any]], args: tuple[Any, ...]) -> None:
    global _function
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes are the parallelism
    _function = factory(*args)


def _work(path: str, name: str) -> Any:
    assert _function is not None
    return _function(path, name)
