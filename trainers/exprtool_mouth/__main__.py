"""python -m exprtool_mouth train --data FOLDER --data FOLDER --out RUN   (again: goes on from the last checkpoint)
python -m exprtool_mouth export --out RUN -o mouth.onnx"""

from __future__ import annotations

import argparse
from pathlib import Path

from exprtool_mouth.config import MouthConfig


def main() -> None:
    parser = argparse.ArgumentParser(
        "exprtool_mouth", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    plain = MouthConfig((), Path())
    train = commands.add_parser("train")
    train.add_argument("--data", type=Path, action="append", required=True)
    train.add_argument("--out", type=Path, required=True)
    for name in ("steps", "batch_size", "critic_from", "threads", "seed"):
        train.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(plain, name))
    export = commands.add_parser("export")
    export.add_argument("--out", type=Path, required=True, help="the run's folder")
    export.add_argument("-o", "--output", type=Path, required=True)
    given = vars(parser.parse_args())
    if given.pop("command") == "train":
        from exprtool_mouth.loop import train as run

        run(MouthConfig(**{**given, "data": tuple(given["data"])}), lambda line: print(line, flush=True))
    else:
        from exprtool_mouth.export import export as write

        print(write(given["out"], given["output"]))


if __name__ == "__main__":
    main()
