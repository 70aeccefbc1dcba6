"""Tables as they are printed."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType


def printed_words(part: RenderableType) -> list[list[str]]:
    """Return the words of every printed line."""
    console = Console(file=io.StringIO(), width=120, markup=False)
    console.print(part)
    return [line.split() for line in console.file.getvalue().splitlines()]
