"""Progress bars of a long run, for a terminal or a notebook: one line for every phase that is under way.

A phase ends when it is done, when its steps are not counted and another begins, or when the phase around it goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from onnx_subprune.formatting import printable

__all__ = ["Bars", "progress_bar"]

Tell: TypeAlias = Callable[[str, int, int | None], None]
_BAR = 20


@contextlib.contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Tell]:
    """Draw bars while the block runs.

    Args:
        console: where to draw; a new one on stderr where none is given.

    Yields:
        The `progress` argument of `prune`, `apply`, `calibrate`, `factorise`, `Result.measure` and `Result.report`.

    Examples:
        with progress_bar() as progress:
            result = prune("model.onnx", "calib.npz", progress=progress)

    """
    phase = TextColumn("{task.description}", markup=False)
    columns = (phase, BarColumn(_BAR), _Steps(), TimeElapsedColumn(), _TimeLeft())
    with Progress(*columns, console=console or Console(stderr=True), transient=True, refresh_per_second=4) as display:
        yield Bars(display)


class Bars:
    """The phases under way, the outermost first."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._running: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Take the steps done in a phase and their number."""
        names = list(self._running)
        known = name in self._running
        over = names[names.index(name) + 1 :] if known else [phase for phase in names if self._ends(phase)]
        for phase in over:
            self._display.remove_task(self._running.pop(phase))
        if not known:
            self._running[name] = self._display.add_task(printable(name), total=total)
        self._display.update(self._running[name], completed=done, total=total)

    def _ends(self, name: str) -> bool:
        """Whether a phase is over as soon as another begins."""
        task = self._task(name)
        return task.total is None or task.finished

    def _task(self, name: str) -> Task:
        return next(task for task in self._display.tasks if task.id == self._running[name])


class _Steps(MofNCompleteColumn):
    """Steps done of all; nothing for a phase whose steps are not counted."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None or task.completed else Text("")


class _TimeLeft(ProgressColumn):
    """The time left, as soon as it is known."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        seconds = task.time_remaining
        return Text("" if seconds is None else f"{timedelta(seconds=int(seconds))} left", style="progress.remaining")
