"""How long ``exprtool --help`` takes from the shell's point of view, and which imports take it.

    python benchmarks/start.py [--runs 15]

Prints the median and the least of several runs, and the processor time, beside those of an empty Python: a busy machine
has its share in all of them. The aim is 0.4 s for ``--help``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "exprtool --version": ("-m", "exprtool", "--version"),
    "exprtool --help": ("-m", "exprtool", "--help"),
    "exprtool backends --json": ("-m", "exprtool", "backends", "--json"),
}


def seconds(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Time that passed and processor time of one run."""
    start, used = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    now = os.times()
    return (
        time.perf_counter() - start,
        now.children_user + now.children_system - used.children_user - used.children_system,
    )


def slowest_imports(count: int = 8) -> list[tuple[float, str]]:
    """The modules that cost most by themselves on the way to ``--help``, in milliseconds."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "exprtool", "--help"], capture_output=True, text=True, check=True
    )
    rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if "|" in line]
    return sorted(((int(own) / 1000, name.strip()) for own, _, name in rows if own.strip().isdigit()), reverse=True)[
        :count
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    # in turns, so that a busy moment of the machine falls on all of them
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    for name, measured in times.items():
        passed, used = zip(*measured, strict=True)
        print(
            f"{name:26} median {statistics.median(passed):.3f} s   least {min(passed):.3f} s   "
            f"processor {statistics.median(used):.2f} s"
        )
    print("\nslowest imports of --help (their own time):")
    for own, name in slowest_imports():
        print(f"{own:8.1f} ms  {name}")


if __name__ == "__main__":
    main()
