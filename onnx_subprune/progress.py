"""Progress of a long run: a name for every phase, and how much of it is done.

A function counts in its own units and knows no names (`Progress`); its caller gives each phase its name (`Watch`). A
phase may run inside another one that is not done yet: layers are fitted within one trial of several.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

__all__ = ["Progress", "Watch", "begin", "phase"]

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
