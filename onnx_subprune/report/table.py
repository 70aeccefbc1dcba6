"""The one look of all tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from rich.box import SIMPLE_HEAD
from rich.table import Table

__all__ = ["Row", "table"]

Row: TypeAlias = Sequence[str]


def table(columns: Sequence[str], rows: Iterable[Row], sides: str, title: str | None = None) -> Table:
    """Return a table; `sides` has an l or r for each column, numbers being on the right."""
    drawn = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False, show_edge=False)
    for column, side in zip(columns, sides, strict=True):
        # Numbers stay whole; names and reasons wrap rather than lose their end.
        drawn.add_column(column, justify="right" if side == "r" else "left", no_wrap=side == "r", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return drawn
