"""Where a run stands, as its last checkpoint tells: the step, the data, and the settings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exprtool.documents import parse_json
from exprtool.errors import ModelError, TrainingError
from exprtool_training.checkpoint import CHECKPOINTS, LAST, read_metadata

PROGRESS_KEY = "exprtool_training"
_FLOW_KEY = "exprtool_flow_training"
"""Where the trainer ``flow`` kept this before it shared the loop; its runs still go on."""


@dataclass(frozen=True)
class Progress:
    """``step`` of ``total`` steps are done, on data whose fingerprint is ``data``; ``best`` is the score of the best
    checkpoint, None before the first look; ``seconds`` were worked."""

    step: int
    total: int
    data: str
    best: float | None = None
    seconds: float = 0.0

    def to_json(self, trainer: str, config: dict[str, Any]) -> str:
        return json.dumps({"trainer": trainer, "progress": asdict(self), "config": config})


def last_of(folder: Path) -> Path:
    """The checkpoint from which a run goes on; `TrainingError` where its folder holds none."""
    last = folder / CHECKPOINTS / LAST
    if not last.is_file():
        raise TrainingError(
            f"{folder} holds no checkpoint to resume from ({CHECKPOINTS}/{LAST}). Start the run without --resume, or "
            "name the folder of one that has saved."
        )
    return last


def read_progress(path: Path, trainer: str) -> tuple[Progress, dict[str, Any]]:
    """Where the run that a file belongs to stands, and its settings as plain values.

    Raises `TrainingError` where the file can be used but not trained further, or is another trainer's.
    """
    metadata = read_metadata(path)
    old = "flow" if _FLOW_KEY in metadata else "gan"
    text = metadata.get(PROGRESS_KEY) or metadata.get(_FLOW_KEY)
    if text is None:
        raise TrainingError(
            f"{path} holds weights for use but no training state, so the run cannot be continued from it. "
            f"Resume from a run's folder that has {CHECKPOINTS}/{LAST}."
        )
    try:
        training = parse_json(text)
        found, config, values = training.get("trainer", old), dict(training["config"]), training["progress"]
        progress = Progress(
            int(values["step"]), int(values.get("total", config.get("steps", 0))),
            values["data"] if "data" in values else values["data_hash"], values["best"], float(values["seconds"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The training state in {path} cannot be read ({error}). Start a new run.") from None
    if found != trainer:
        raise TrainingError(f"{path} belongs to a run of the trainer {found!r}: give --trainer {found}.")
    return progress, config
