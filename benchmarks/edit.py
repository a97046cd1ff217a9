"""Photos per second, time per stage, and whether memory stays flat, measured on ``exprtool edit`` as users run it.

    python benchmarks/edit.py PHOTO_OR_FOLDER [--backend debug] [--memory]

Prints seconds per stage for the photos as they are and for one of 12 megapixels; with ``--memory`` also the peak
memory for 40 and for 400 photos. Figures are of this machine and moment: compare them within one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from PIL import Image

OWN = ("decode", "composite", "encode")
"""The stages that are neither detection nor backend."""


def run_edit(folder: Path, backend: str) -> tuple[list[dict], float, float]:
    """Edit a folder; returns the JSON records, the seconds and the peak memory (MB) of the process."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "exprtool", "edit", str(folder), "-e", "surprised", "-b", backend]
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, "-o", out, "--json", "-q"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert process.stdout
        records = [json.loads(line) for line in process.stdout]
        _, _, usage = os.wait4(process.pid, 0)
        return records, time.perf_counter() - start, usage.ru_maxrss / 1024


def show(title: str, records: list[dict], seconds: float) -> None:
    stages: Counter[str] = Counter()
    for record in records:
        stages.update(record["timings"])
    total = sum(stages.values())
    edited = sum(record["status"] == "edited" for record in records)
    print(f"{title}: {len(records)} photos ({edited} edited) in {seconds:.1f} s: {len(records) / seconds:.2f} photos/s")
    for stage, spent in stages.items():
        print(f"  {stage:<10}{spent / len(records):8.3f} s a photo {spent / total:6.1%}")
    own = sum(stages[stage] for stage in OWN)
    print(f"  everything except detection and backend: {own / total:.1%}")


def copies(photo: Path, folder: Path, count: int) -> Path:
    folder.mkdir()
    for i in range(count):
        os.link(photo, folder / f"{i:04}{photo.suffix}")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--backend", default="debug")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    photos = arguments.photos
    show(str(photos), *run_edit(photos, arguments.backend)[:2])
    single = photos if photos.is_file() else next(path for path in sorted(photos.iterdir()) if path.suffix == ".jpg")
    with tempfile.TemporaryDirectory(dir=".") as work:
        large = Path(work) / "large"
        large.mkdir()
        with Image.open(single) as image:
            scale = (12e6 / (image.width * image.height)) ** 0.5
            size = (round(image.width * scale), round(image.height * scale))
            image.resize(size, Image.Resampling.BICUBIC).save(large / "12mp.jpg", quality=92)
        show("12 megapixels", *run_edit(large, arguments.backend)[:2])
        if arguments.memory:
            with Image.open(single) as image:
                image.save(Path(work) / "one.jpg", quality=92)
            few, many = (
                run_edit(copies(Path(work) / "one.jpg", Path(work) / str(count), count), arguments.backend)[2]
                for count in (40, 400)
            )
            print(f"peak memory: {few:.0f} MB for 40 photos, {many:.0f} MB for 400: ratio {many / few:.2f}")


if __name__ == "__main__":
    main()
