"""Mutated photos and clips among healthy ones: no traceback, no crash, no hang, no healthy file lost, little memory.

By hand with more files and another seed:
``EXPRTOOL_FUZZ="photos=2000 clips=400 seed=7" python -m pytest -n 0 tests/fuzz``
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from mutations import clips, mutated, photos

_ASKED = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", os.environ.get("EXPRTOOL_FUZZ", ""))}
PHOTOS, CLIPS, SEED = _ASKED.get("photos", 110), _ASKED.get("clips", 24), _ASKED.get("seed", 1)
AT_ONCE = 60
"""Files for one run: a crash is then found among so many."""
SECONDS_EACH = 20
"""A file that takes longer hangs."""
MOST_MEMORY = 2 << 30

# The child measures itself: what its parent sees is the largest of all children.
_RUN = (
    "import resource, sys\n"
    "from exprtool.cli.main import run\n"
    "try: run()\n"
    "finally: print('peak', 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
)


def batches(count: int) -> list[range]:
    return [range(start, min(start + AT_ONCE, count)) for start in range(0, count, AT_ONCE)]


def attempt(command: str, folder: Path, out: Path, healthy: Mapping[str, bytes], bad: Mapping[str, bytes]) -> None:
    """Run a command on a folder of healthy and bad files and check what is promised."""
    folder.mkdir()
    for name, data in (*((f"good-{name}", data) for name, data in healthy.items()), *bad.items()):
        (folder / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, command, str(folder), "-e", "happy", "-b", "debug", "--json", "-o", str(out)],
        capture_output=True, text=True, timeout=60 + SECONDS_EACH * len(list(folder.iterdir())),
    )  # fmt: skip
    about = f"{done.stderr[-3000:]}\nrc {done.returncode}, files in {folder}"
    assert done.returncode in (0, 1), about
    assert "Traceback" not in done.stderr, about
    records = {Path(record["input"]).name: record for record in map(json.loads, done.stdout.splitlines())}
    assert set(records) == {path.name for path in folder.iterdir()}, about
    unforeseen = [record["error"] for record in records.values() if "unexpected " in (record["error"] or "")]
    assert not unforeseen, "\n".join(unforeseen)
    for name in healthy:
        assert records[f"good-{name}"]["status"] == "edited", records[f"good-{name}"]
    for record in records.values():
        assert record["status"] != "edited" or Path(record["output"]).stat().st_size > 0
        assert record["status"] == "edited" or record["error"]
    for name, data in (*((f"good-{name}", data) for name, data in healthy.items()), *bad.items()):
        assert (folder / name).read_bytes() == data, f"{name} was written to"
    assert not [path for path in out.rglob(".*") if path.is_file()], "unfinished files were left"
    peak = int(done.stderr.rsplit("peak ", 1)[1].split()[0])
    assert peak < MOST_MEMORY, f"{peak / 2**30:.2f} GiB, files in {folder}"


@pytest.mark.parametrize("numbers", batches(PHOTOS), ids=lambda numbers: f"photos-{numbers.start}")
def test_photos(tmp_path: Path, numbers: range) -> None:
    healthy = photos()
    files = list(mutated(healthy, PHOTOS, SEED))[numbers.start : numbers.stop]
    attempt("edit", tmp_path / "in", tmp_path / "out", healthy, dict(files))


@pytest.mark.parametrize("numbers", batches(CLIPS), ids=lambda numbers: f"clips-{numbers.start}")
def test_clips(tmp_path: Path, numbers: range) -> None:
    healthy = clips(tmp_path)
    files = list(mutated(healthy, CLIPS, SEED))[numbers.start : numbers.stop]
    attempt("video", tmp_path / "in", tmp_path / "out", healthy, dict(files))
