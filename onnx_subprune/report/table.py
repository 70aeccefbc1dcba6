"""The one look of all tables in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from onnx_subprune.formatting import printable

__all__ = ["Row", "table"]

Row: TypeAlias = Sequence[str]


def table(columns: Sequence[str], rows: Iterable[Row], sides: str, title: str | None = None) -> Table:
    """Return a table; `sides` has an l or r for each column, numbers being on the right. No text in it is markup."""
    heading = None if title is None else _text(title)
    drawn = Table(box=SIMPLE_HEAD, title=heading, title_justify="left", title_style="", pad_edge=False, show_edge=False)
    for column, side in zip(columns, sides, strict=True):
        # Numbers stay whole; names and reasons wrap rather than lose their end.
        justify: Literal["left", "right"] = "right" if side == "r" else "left"
        drawn.add_column(_text(column), justify=justify, no_wrap=side == "r", overflow="fold")
    for row in rows:
        drawn.add_row(*map(_text, row))
    return drawn


def _text(words: str) -> Text:
    return Text(printable(words))
