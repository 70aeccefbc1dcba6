"""Ctrl-C while a command runs, in a form that typer does not answer itself."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

__all__ = ["CommandGroup", "Interrupted"]


class Interrupted(Exception):  # noqa: N818 - not an error: the user's wish
    """The user pressed Ctrl-C."""


class CommandGroup(TyperGroup):
    """The commands, which hand an interrupt on to the one way out (`exits.py`)."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command of a context; Interrupted in the place of KeyboardInterrupt."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Interrupted from interrupt
