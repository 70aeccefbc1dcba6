"""Progress of a long run: a name for every phase, and how much of it is done.

A function counts in its own units and knows no names (`Progress`); its caller gives each phase its name (`Watch`). A
phase may run inside another one that is not done yet: layers are fitted within one trial of several. A `PhaseClock`
takes down how long each phase took.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

__all__ = ["NOTE", "PhaseClock", "Progress", "Taken", "Watch", "begin", "now", "phase", "resident_bytes"]

NOTE = 25
"""The level of what the log tells everyone who does not ask for silence, between information and warnings."""

_clock = time.perf_counter
_STATUS = Path("/proc/self/status")

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the steps done and their number (None if unknown)."""

Watch: TypeAlias = Callable[[str, int, int | None], None]
"""Called with the name of a phase, the steps done in it and their number (None if unknown)."""


def phase(watch: Watch | None, name: str) -> Progress | None:
    """Return a function of the steps done and their number in the phase `name`; None where nobody watches.

    >>> phase(print, "calibrating")(3, 8)
    calibrating 3 8

    """
    return None if watch is None else partial(watch, name)


def begin(watch: Watch | None, name: str) -> None:
    """Say that a phase begins whose steps are not counted.

    >>> begin(print, "verifying")
    verifying 0 None

    """
    if watch is not None:
        watch(name, 0, None)


def now() -> float:
    """Return the seconds of the clock that phases are timed by; only differences have a meaning."""
    return _clock()


def resident_bytes(field: str = "VmRSS") -> int:
    """Return how much memory this process takes; 0 where the system does not say.

    Args:
        field: what Linux counts under this name: `VmRSS`, or `VmHWM`, the most so far.

    """
    with suppress(OSError, ValueError):
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
    return 0


@dataclass(frozen=True)
class Taken:
    """What a phase took.

    Attributes:
        seconds: on the clock.
        bytes: resident memory of the process, the most that was seen at a step; 0 where the system does not say.

    """

    seconds: float
    bytes: int


class PhaseClock:
    """A `Watch` that takes down what phases take, and tells another one.

    Time counts for the phase that was told of last: a phase inside another one counts for itself alone.

    Args:
        watch: who is told too; None for nobody.

    """

    def __init__(self, watch: Watch | None = None) -> None:
        self._watch = watch
        self._phase = ""
        self._since = self._started = now()
        self._taken: dict[str, Taken] = {}

    def __call__(self, name: str, done: int, total: int | None) -> None:
        """Take down what the last phase took so far, and tell of the next step."""
        self._take_down()
        self._phase = name
        if self._watch is not None:
            self._watch(name, done, total)

    @property
    def seconds(self) -> float:
        """Since the clock was started."""
        return now() - self._started

    def taken(self) -> dict[str, Taken]:
        """Return what every phase took so far, in the order of their beginnings."""
        self._take_down()
        return dict(self._taken)

    def _take_down(self) -> None:
        since, self._since = self._since, now()
        if self._phase:
            before = self._taken.get(self._phase, Taken(0.0, 0))
            seconds = before.seconds + self._since - since
            self._taken[self._phase] = Taken(seconds, max(before.bytes, resident_bytes()))
