"""Many items, several processes: all are done, a death is told, and nobody stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exprtool.errors import DataError, UnknownNameError
from exprtool.processes import over_items

THREADS = os.environ.get("OMP_NUM_THREADS")
"""As it is when this module is imported: in a worker, while its first task is unpickled."""

PARENT = """
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from exprtool.processes import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(2, get_context("spawn"), initializer=end_with_parent)
    print(*{pool.submit(os.getpid).result() for _ in range(4)}, flush=True)
    pool.submit(time.sleep, 600)
    time.sleep(600)
"""


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(sys.platform == "win32", reason="kills with POSIX signals")
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert workers
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while any(map(_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [pid for pid in workers if _alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def squares(offset: int) -> Callable[[int], tuple[int, int]]:
    return lambda item: (item * item + offset, os.getpid())


def threads() -> Callable[[int], str | None]:
    return lambda item: THREADS


def deadly() -> Callable[[int], int]:
    return lambda item: os._exit(3) if item == 5 else item


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_is_answered_under_its_key(workers: int) -> None:
    items = {f"item {i}": i for i in range(20)}
    found = dict(over_items(items, squares, (100,), workers=workers))
    assert {key: value for key, (value, _) in found.items()} == {key: i * i + 100 for key, i in items.items()}
    processes = {process for _, process in found.values()}
    assert (processes == {os.getpid()}) == (workers == 1)
    assert not dict(over_items({}, squares, (0,), workers=workers))


def test_few_items_are_not_worth_a_process() -> None:
    found = dict(over_items(dict(enumerate(range(5))), squares, (0,), workers=2, few=6))
    assert {process for _, process in found.values()} == {os.getpid()}


@pytest.mark.parametrize("outside", [None, "2"])
def test_workers_compute_with_one_thread_from_their_first_import_on(
    monkeypatch: pytest.MonkeyPatch, outside: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if outside:
        monkeypatch.setenv("OMP_NUM_THREADS", outside)
    assert set(dict(over_items(dict(enumerate(range(8))), threads, (), workers=2)).values()) == {"1"}
    assert os.environ.get("OMP_NUM_THREADS") == outside


def test_a_dying_worker_is_told() -> None:
    with pytest.raises(DataError, match="What is done is kept"):
        list(over_items(dict(enumerate(range(12))), deadly, (), workers=2))


def unready() -> Callable[[int], int]:
    raise UnknownNameError("model", "none", ("one", "two"))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_keeps_workers_from_starting_is_told(workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown model 'none'.*one, two"):
        list(over_items(dict(enumerate(range(12))), unready, (), workers=workers))
    assert "Traceback" not in capfd.readouterr().err
