"""One clip edited again and again while the machine is busy, alone, after another clip, and killed and resumed.

    python benchmarks/same_bits.py clip.mp4 --other other.mp4 --runs 5 --backend default

Prints one line for each run with the SHA-256 of its decoded frames, and ends with 1 where they are not all the same.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from exprtool.devices import usable_cpus
from exprtool.videos.clip import probe
from exprtool.videos.reader import read_frames

_BUSY = "while True: sum(range(10**6))"


def frames_hash(path: Path) -> str:
    """SHA-256 over the samples of all decoded frames."""
    digest = hashlib.sha256()
    for frame in read_frames(probe(path)):
        assert frame.picture is not None
        digest.update(np.ascontiguousarray(frame.picture.frame().to_ndarray()).tobytes())
    return digest.hexdigest()


def command(clips: list[Path], out: Path, options: list[str]) -> list[str]:
    return [sys.executable, "-m", "exprtool", "video", *map(str, clips), "-e", "happy", "-o", f"{out}/", "-q", *options]


def kill_once(words: list[str], seconds: float) -> bool:
    """Run a command for so long and kill it; False where it was done before."""
    process = subprocess.Popen(words)
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--other", type=Path, help="a clip to edit before it in the same call")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--backend", default="auto")
    given = parser.parse_args()
    options = ["--backend", given.backend]
    load = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(2 * usable_cpus())]
    found: dict[str, str] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            clip = Path(folder) / given.clip.name
            shutil.copy(given.clip, clip)
            took = 0.0
            for run in range(given.runs):
                out, began = Path(folder) / f"alone{run}", time.monotonic()
                subprocess.run(command([clip], out, options), check=True)
                took = time.monotonic() - began
                found[f"alone {run + 1}"] = frames_hash(out / clip.name)
            if given.other is not None:
                other, out = Path(folder) / f"before{given.other.suffix}", Path(folder) / "after"
                shutil.copy(given.other, other)
                subprocess.run(command([other, clip], out, options), check=True)
                found["after another"] = frames_hash(out / clip.name)
            out = Path(folder) / "killed"
            kills = sum(kill_once(command([clip], out, options), share * took) for share in (0.6, 0.7, 0.8))
            subprocess.run(command([clip], out, [*options, "--skip-existing"]), check=True)
            found[f"killed {kills} times and resumed"] = frames_hash(out / clip.name)
    finally:
        for process in load:
            process.kill()
    for name, digest in found.items():
        print(f"{name:32} {digest}")
    print(f"{len(set(found.values()))} set of decoded frames" + "s" * (len(set(found.values())) > 1))
    return int(len(set(found.values())) > 1)


if __name__ == "__main__":
    sys.exit(main())
