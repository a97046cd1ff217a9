"""What exprtool does with awkward photos, clips and settings: one line a file.

    python benchmarks/field.py SPECIMENS [--exprtool PATH]     # PATH: another checkout's command, for before and after

SPECIMENS holds ``photos/``, ``videos/`` and ``safety/``. Each file is given to the command that a user would give it
to; the line says how the command ended, what it wrote, what that holds beside the input, and what was said.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRACEBACK = "Traceback (most recent call last)"
PATIENCE = 240
"""Seconds that a command may take before it counts as hanging."""


def run(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[str, str]:
    """How a command ended and what it said, on one line."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return f"hangs (over {PATIENCE} s)", ""
    said = done.stderr + done.stdout
    ended = "TRACEBACK" if TRACEBACK in said else f"exit {done.returncode}"
    lines = [line.strip() for line in said.splitlines() if line.strip() and "━" not in line]
    return f"{ended} in {time.monotonic() - began:.0f} s", " / ".join(lines)


def streams(path: Path) -> str:
    """Streams, duration and pictures of a clip, as ffprobe reads them."""
    entries = "stream=codec_type,codec_name,pix_fmt,nb_read_packets:format=duration,start_time"
    shape = ["-of", "compact=nk=1:p=0"]
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-count_packets", "-show_entries", entries, *shape, f"file:{path}"],
        capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    return "; ".join(done.stdout.split())


def holds(path: Path) -> str:
    """What a picture carries beside its pixels, by the marks of the blocks that matter here."""
    data = path.read_bytes()
    marks = {
        "GImage": rb"GImage", "GDepth": rb"GDepth:Data", "C2PA": rb"jumb|c2pa", "extended XMP": rb"xmp/extension",
        "Photoshop": rb"8BIM", "gain map": rb"21496|hdrgm", "FlashPix": rb"FPXR", "motion": rb"MotionPhoto|SEFH",
    }  # fmt: skip
    found = [name for name, mark in marks.items() if re.search(mark, data)]
    return f"{len(data) // 1024} KiB" + (f" ({', '.join(found)})" if found else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specimens", type=Path)
    parser.add_argument("--exprtool", default=str(Path(sys.executable).with_name("exprtool")))
    options = parser.parse_args()
    tool, specimens = options.exprtool, options.specimens.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        environment = {**os.environ, "EXPRTOOL_HOME": str(folder / "home")}

        def line(name: str, ended: str, written: str, said: str) -> None:
            print(f"| {name} | {ended} | {written} | {said[:360]} |", flush=True)

        print("| file | end | before -> written | said |\n| --- | --- | --- | --- |")
        for path in sorted((specimens / "photos").iterdir()):
            out = folder / f"out{path.suffix}"
            ended, said = run([tool, "edit", str(path), "-e", "happy", "-o", str(out)], folder, environment)
            written = f"{holds(path)} -> {holds(out)}" if out.is_file() else "nothing"
            line(path.name, ended, written, said)
            if out.is_file():
                out.unlink()
        for path in sorted((specimens / "videos").iterdir()):
            command = [
                tool,
                "video",
                str(path),
                "-e",
                "happy",
                "-b",
                "debug",
                "-o",
                "clip" + path.suffix,
                "--overwrite",
            ]
            ended, said = run(command, folder, environment)
            out = folder / f"clip{path.suffix}"
            written = f"{streams(path)} -> {streams(out)}" if out.exists() else "nothing"
            line(path.name, ended, written, said)
            if out.is_file():
                out.unlink()
        safety = specimens / "safety"
        for path in sorted((safety / "checkpoints").iterdir()):
            ended, said = run([tool, "models", "import", str(path)], folder, environment)
            line(path.name, ended, "", said)
        for path in sorted((safety / "settings").glob("*.toml")):
            ended, said = run([tool, "train", "--config", str(path), "--out", "run"], folder, environment)
            line(path.name, ended + (" RAW CONTROL" if "\x1b" in said else ""), "", said)
        for name in ("stuck", "order"):
            shutil.copytree(safety / name, folder / name)
            command = [tool, "video", name, "-e", "happy", "-b", "debug", "-o", f"{name}-out"]
            for attempt in ("first", "again"):
                ended, said = run(command, folder, environment)
                written = ", ".join(sorted(each.name for each in (folder / f"{name}-out").glob("*")))
                line(f"{name} ({attempt})", ended, written or "nothing", said)


if __name__ == "__main__":
    main()
