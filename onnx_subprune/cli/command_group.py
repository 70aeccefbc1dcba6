"""The commands as one program: what typer would answer in its own way, in a form that the one way out understands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from onnx_subprune.cli.interrupt import Interrupted
from onnx_subprune.formatting import printable

__all__ = ["CommandGroup"]

# That of click, which some versions of typer bring along.
_USAGE_ERRORS: Any = typer.BadParameter.__base__


class CommandGroup(TyperGroup):
    """The commands, whose errors come out of them (`exits.py`)."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the words of the command line before the command's name."""
        with _handed_on():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command of a context.

        Raises:
            Interrupted: in the place of KeyboardInterrupt.

        """
        with _handed_on():
            return super().invoke(ctx)


@contextlib.contextmanager
def _handed_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise Interrupted from interrupt
    except EOFError as error:
        raise RuntimeError(f"a file ended too soon: {error}") from error
    except _USAGE_ERRORS as error:
        error.message = printable(str(error.message))
        raise
