"""The settings of one training run of the painter of mouths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class MouthConfig:
    """``data`` are folders of photos (see `exprtool_mouth.data`); of each set those ``held_out`` names are never
    trained on. ``share`` of each batch comes from the sets after the first, which are smaller and finer."""

    data: tuple[Path, ...]
    out: Path
    held_out: tuple[int, ...] = (200, 8)
    share: float = 0.2
    widths: tuple[int, int, int] = (32, 96, 160)
    """Channels of the painter at a half, a quarter and an eighth of the size; multiples of 8."""
    steps: int = 3800
    batch_size: int = 8
    lr: float = 1.5e-3
    lr_critic: float = 4e-4
    critic_from: int = 300
    """Step from which the critic judges: before that there is nothing worth its judgement."""
    alike: float = 6.0
    """Weight of the difference from the real mouth."""
    believed: float = 0.5
    """Weight of the critic's judgement."""
    features: float = 2.0
    """Weight of the difference in the critic's features."""
    average: float = 0.998
    """Decay per step of the average of the painter, which is what is exported."""
    clean_at: float = 0.25
    """Share of the run after which the mouths that the painter understands least are left out: food, microphones,
    hands, and landmarks that missed."""
    clean: float = 0.04
    """Share of the mouths that are then left out."""
    save_minutes: float = 4.0
    look_every: int = 250
    threads: int = 1
    seed: int = 0
