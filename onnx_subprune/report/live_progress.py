"""Bars of what a long run is at, for a terminal or a notebook: one line for every phase that is under way.

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

__all__ = ["Bars", "progress_bar"]

Tell: TypeAlias = Callable[[str, int, int | None], None]
_BAR = 20


@contextlib.contextmanager
def progress_bar(console: Console | None = None) -> Iterator[Tell]:
    """Draw bars while the block runs; what is yielded is the `progress` of `prune`, `apply`, `calibrate`, `factorise`.

    Args:
        console: where to draw; a new one on stderr where none is given.

    """
    columns = (TextColumn("{task.description}"), BarColumn(_BAR), _Steps(), TimeElapsedColumn(), _Left())
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
        inner = names[names.index(name) + 1 :] if name in self._running else [one for one in names if self._ends(one)]
        for one in inner:
            self._display.remove_task(self._running.pop(one))
        if name not in self._running:
            self._running[name] = self._display.add_task(name, total=total)
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


class _Left(ProgressColumn):
    """The time left, as soon as it is known."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None else f"{timedelta(seconds=int(left))} left", style="progress.remaining")
