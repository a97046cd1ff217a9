"""What one sees of a run: a live screen on a terminal, plain lines elsewhere (log files, clusters)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from exprtool.cli.console import SafeConsole
from exprtool_training.watch import Look, Plan, Watcher

_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 40


def screen(console: Console | None = None) -> Watcher:
    """The watcher that suits where the output goes: stderr, if no console is given."""
    console = console or SafeConsole(stderr=True)
    return LiveScreen(console) if console.is_terminal else PlainLines(console)


class PlainLines(Watcher):
    """One line per event."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._plan: Plan | None = None
        self._said = 0.0

    def prepared(self, done: int, total: int, name: str) -> None:
        if done == total or time.monotonic() - self._said > 10:
            self._said = time.monotonic()
            self._say(f"preparing pictures: {done} of {total}")

    def started(self, plan: Plan) -> None:
        self._plan = plan
        for line in plan.facts:
            self._say(line)

    def logged(self, step: int, losses: Mapping[str, float], per_second: float) -> None:
        plan = self._plan
        figures = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        left = f", {left_text((plan.total - step) * plan.batch_size, per_second)} left" if plan else ""
        total = f" of {plan.total:,}" if plan else ""
        unit = plan.unit if plan else "images"
        self._say(f"step {step:,}{total}  {figures}  ({per_second:.1f} {unit}/s{left})")

    def sampled(self, path: Path) -> None:
        self._say(f"sample sheet: {path}")

    def looked(self, step: int, look: Look, best: bool) -> None:
        self._say(f"held-out people at step {step:,}: {look.text}{' (best so far)' if best else ''}")

    def saved(self, step: int, path: Path) -> None:
        self._say(f"saved step {step:,}: {path}")

    def ended(self, text: str) -> None:
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True, highlight=False)


class LiveScreen(Watcher):
    """Losses with their course, speed, time left, the last sample sheet, look and checkpoint, in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._plan: Plan | None = None
        self._status = Text("reading the data", style="dim")
        self._step, self._speed = 0, 0.0
        self._began, self._began_step = time.monotonic(), 0
        self._losses: dict[str, deque[float]] = {}
        self._facts: dict[str, str] = {}

    def prepared(self, done: int, total: int, name: str) -> None:
        self._status = Text(f"preparing pictures: {done} of {total}  {name}", style="dim")
        self._show()

    def started(self, plan: Plan) -> None:
        self._plan, self._step = plan, plan.start
        self._began, self._began_step = time.monotonic(), plan.start
        self._show()

    def stepped(self, step: int) -> None:
        self._step = step

    def logged(self, step: int, losses: Mapping[str, float], per_second: float) -> None:
        self._speed = per_second
        for name, value in losses.items():
            self._losses.setdefault(name, deque(maxlen=_HISTORY)).append(value)

    def sampled(self, path: Path) -> None:
        self._facts["sample sheet"] = str(path)

    def looked(self, step: int, look: Look, best: bool) -> None:
        self._facts["held-out people"] = f"step {step:,}: {look.text}"
        if best:
            self._facts["best so far"] = f"step {step:,}, score {look.score:.3f}"

    def saved(self, step: int, path: Path) -> None:
        self._facts["checkpoint"] = f"step {step:,}: {path}"

    def ended(self, text: str) -> None:
        self.close()
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.update(self._render(), refresh=True)
            self._live.stop()
            self._live = None

    def _show(self) -> None:
        if self._live is None:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, vertical_overflow="crop"
            )
            self._live.start()

    def _render(self) -> RenderableType:
        plan = self._plan
        if plan is None:
            return self._status
        seconds = time.monotonic() - self._began
        done = self._step - self._began_step
        speed = self._speed or (done * plan.batch_size / seconds if done else 0.0)
        left = left_text((plan.total - self._step) * plan.batch_size, speed)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=plan.total, completed=self._step, width=32),
            f"step {self._step:,} of {plan.total:,}",
            f"{speed:.1f} {plan.unit}/s",
            f"{left} left",
        )
        losses = Table.grid(padding=(0, 2))
        for name, values in self._losses.items():
            losses.add_row(
                Text(name, style="bold"),
                Text(f"{values[-1]:.4g}", justify="right"),
                Text(sparkline(values), style="cyan"),
                Text(plan.meanings.get(name, ""), style="dim"),
            )
        facts = Table.grid(padding=(0, 2))
        for name, value in self._facts.items():
            facts.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
        parts: list[RenderableType] = [*(Text(line, style="dim") for line in plan.facts), bar, losses, facts]
        return Panel(Group(*parts), title=f"exprtool train: {plan.out}", title_align="left")


def left_text(images: int, per_second: float) -> str:
    """How long so many images take."""
    return str(timedelta(seconds=round(images / per_second))) if per_second > 0 else "?"


def sparkline(values: deque[float]) -> str:
    """The course of a few values in block characters, from their least to their greatest."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in values)
