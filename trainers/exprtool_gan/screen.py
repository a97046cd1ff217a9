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
from exprtool_gan.look import Look
from exprtool_gan.watch import Plan, Watcher

_BARS = "▁▂▃▄▅▆▇█"
_HISTORY = 40
_MEANING = {
    "d_real": "D on real, higher is more real",
    "d_fake": "D on generated",
    "d_gp": "gradient penalty (eq. 2)",
    "d_expr": "expression of real (eq. 6)",
    "d_total": "L_D (eq. 7)",
    "g_fake": "D on generated, in G's step",
    "g_expr": "expression of generated (eq. 5)",
    "g_rec": "reconstruction (eq. 4)",
    "g_total": "L_G (eq. 8)",
}


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
        for line in describe(plan):
            self._say(line)

    def logged(self, step: int, losses: Mapping[str, float], images_per_second: float) -> None:
        plan = self._plan
        figures = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        left = f", {left_text((plan.total - step) * plan.batch_size, images_per_second)} left" if plan else ""
        total = f" of {plan.total:,}" if plan else ""
        self._say(f"step {step:,}{total}  {figures}  ({images_per_second:.1f} images/s{left})")

    def sampled(self, path: Path) -> None:
        self._say(f"sample sheet: {path}")

    def looked(self, step: int, look: Look, best: bool) -> None:
        self._say(f"held-out people at step {step:,}: {look_text(look)}{' (best so far)' if best else ''}")

    def saved(self, step: int, path: Path) -> None:
        self._say(f"saved step {step:,}: {path}")

    def ended(self, step: int, out: Path, finished: bool) -> None:
        self._say(end_text(step, out, finished))

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

    def logged(self, step: int, losses: Mapping[str, float], images_per_second: float) -> None:
        self._speed = images_per_second
        for name, value in losses.items():
            self._losses.setdefault(name, deque(maxlen=_HISTORY)).append(value)

    def sampled(self, path: Path) -> None:
        self._facts["sample sheet"] = str(path)

    def looked(self, step: int, look: Look, best: bool) -> None:
        self._facts["held-out people"] = f"step {step:,}: {look_text(look)}"
        if best:
            self._facts["best so far"] = f"step {step:,}, score {look.score:.3f}"

    def saved(self, step: int, path: Path) -> None:
        self._facts["checkpoint"] = f"step {step:,}: {path}"

    def ended(self, step: int, out: Path, finished: bool) -> None:
        self._step = step
        self.close()
        self._console.print(Text(end_text(step, out, finished)), soft_wrap=True)

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
            f"{speed:.1f} images/s",
            f"{left} left",
        )
        losses = Table.grid(padding=(0, 2))
        for name, values in self._losses.items():
            losses.add_row(
                Text(name, style="bold"),
                Text(f"{values[-1]:.4g}", justify="right"),
                Text(sparkline(values), style="cyan"),
                Text(_MEANING.get(name, ""), style="dim"),
            )
        facts = Table.grid(padding=(0, 2))
        for name, value in self._facts.items():
            facts.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
        parts: list[RenderableType] = [*(Text(line, style="dim") for line in describe(plan)), bar, losses, facts]
        return Panel(Group(*parts), title=f"exprtool train: {plan.out}", title_align="left")


def describe(plan: Plan) -> list[str]:
    """The run in a few lines."""
    precision = "bfloat16, gradient penalty float32" if plan.half else "float32"
    recorded = ", CUDA graphs" if plan.recorded else ""
    many = f" x {plan.processes} processes" if plan.processes > 1 else ""
    begin = f"resumed at step {plan.start:,}, " if plan.start else ""
    return [
        f"{plan.images:,} images of {plan.people:,} people, {plan.held_out:,} held out; {', '.join(plan.labels)}",
        f"G {plan.g_parameters:,} and D {plan.d_parameters:,} parameters; recipe {plan.recipe}",
        f"{begin}{plan.total:,} steps of {plan.batch_size} on {plan.device}{many}, {precision}{recorded}",
        *plan.notes,
    ]


def look_text(look: Look) -> str:
    judge = "D's own head, no evidence" if look.judge == "own head" else look.judge
    parts = [f"{look.accuracy:.1%} show the expression ({judge})"]
    if look.acd is not None and look.accepted is not None:
        parts.append(f"ACD {look.acd:.3f}, {look.accepted:.1%} the same person")
    return ", ".join(parts)


def end_text(step: int, out: Path, finished: bool) -> str:
    if finished:
        return f"Done after {step:,} steps. Use it: exprtool edit PHOTO --expr happy --backend usgan:{out}"
    return f"Stopped and saved after step {step:,}. Go on with: exprtool train --resume --out {out}"


def left_text(images: int, per_second: float) -> str:
    """How long so many images take."""
    return str(timedelta(seconds=round(images / per_second))) if per_second > 0 else "?"


def sparkline(values: deque[float]) -> str:
    """The course of a few values in block characters, from their least to their greatest."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in values)
