"""A run's folder: what was asked for, what it ran on, what it learned from, and what came of it.

``config.toml`` the settings, ``command.txt`` every command that worked on it, ``environment.json`` the machine and
versions, ``data.json`` the data's manifest and the git state of its folders, ``log.jsonl`` one line of losses per
`log_every` steps, ``checkpoints/``, ``samples/`` and ``tensorboard/``.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from exprtool.errors import TrainingError
from exprtool.files import atomic_write
from exprtool.settings import to_toml
from exprtool_training.checkpoint import BEST, CHECKPOINTS, LAST, SUFFIX
from exprtool_training.config import RunConfig
from exprtool_training.progress import last_of

_PACKAGES = ("exprtool", "torch", "numpy", "lightning-fabric", "safetensors", "dlib-bin", "opencv-python")
_OURS = (
    CHECKPOINTS,
    "samples",
    "tensorboard",
    "log.jsonl",
    "config.toml",
    "command.txt",
    "environment.json",
    "data.json",
)


class RunFolder:
    """The folder's layout and its text files. Making one touches nothing; `open` does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / CHECKPOINTS / LAST
        self.best = path / CHECKPOINTS / BEST
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"
        self.log = path / "log.jsonl"

    def kept(self, step: int) -> Path:
        """A network that is kept for good."""
        return self.path / CHECKPOINTS / f"step-{step:06d}{SUFFIX}"

    def sample(self, step: int) -> Path:
        return self.samples / f"step-{step:06d}.png"

    def check(self, config: RunConfig) -> None:
        """Raise `TrainingError` unless the run may begin here: nothing of another run is overwritten unasked."""
        if config.resume:
            last_of(self.path)
        elif any((self.path / name).exists() for name in _OURS) and not config.overwrite:
            raise TrainingError(
                f"{self.path} holds a run already. Continue it with --resume, choose another --out, or discard it "
                "with --overwrite."
            )

    def open(self, config: RunConfig, data: Mapping[str, Any]) -> None:
        """Write the settings, the command, the environment and the data's manifest; clear an old run's files."""
        if config.overwrite and not config.resume:
            for name in _OURS:
                target = self.path / name
                shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        _write(self.path / "config.toml", to_toml(config, "exprtool train --config FILE"))
        commands = self.path / "command.txt"
        earlier = commands.read_text("utf-8") if commands.is_file() else ""
        _write(commands, f"{earlier}{shlex.join(sys.argv)}\n")
        _write(self.path / "environment.json", _json(environment()))
        _write(self.path / "data.json", _json({**data, "git": {str(root): git_state(root) for root in config.data}}))

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add a line to the log. A kill may leave half a line, which `read_log` passes over."""
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        lines = self.log.read_text("utf-8").splitlines() if self.log.is_file() else []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except ValueError:  # the line that a kill cut off
                continue
        return entries

    def forget_after(self, step: int) -> None:
        """Drop log lines of steps that were done after the checkpoint which is being resumed."""
        kept = [json.dumps(entry) + "\n" for entry in self.read_log() if entry.get("step", 0) <= step]
        _write(self.log, "".join(kept))


def environment() -> dict[str, Any]:
    """Versions and machine, as far as they can change a result."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "processors": os.cpu_count(),
        **(_torch() if "torch" in sys.modules else {}),
        "packages": versions,
    }


def _torch() -> dict[str, Any]:
    """What PyTorch runs on, of a run that uses it."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if cuda else None,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
    }


def git_state(root: Path) -> dict[str, Any] | None:
    """The commit that a data folder is at and whether it was changed since; None where it is under no git."""
    folder = root if root.is_dir() else root.parent
    commit = _git(folder, ("rev-parse", "HEAD"))
    if commit is None:
        return None
    changed = _git(folder, ("status", "--porcelain", "--", "."))
    return {"commit": commit, "changed": None if changed is None else bool(changed)}


def _git(folder: Path, arguments: Sequence[str]) -> str | None:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # no git here, or a repository too large to ask
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
