"""Numbers, names and tables as people read them: in a terminal, on a page, in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["change", "count", "duration", "html_table", "milliseconds", "percent", "printable"]

# What a notebook shows of a long list; the report shows all.
_ROWS = 30

_PREFIXES = ("", "k", "M", "G", "T", "P")


def count(number: int, unit: str = "") -> str:
    """Write a number with three digits and a prefix.

    >>> count(960), count(134_056), count(12_572_096, "B")
    ('960', '134 k', '12.6 MB')

    """
    value, power = float(number), 0
    while value >= 999.5 and power + 1 < len(_PREFIXES):
        value, power = value / 1000, power + 1
    digits = f"{value:#.3g}".rstrip(".") if power else str(number)
    return f"{digits} {_PREFIXES[power]}{unit}".rstrip()


def change(dense: float, pruned: float) -> str:
    """Write what remains of a cost as a percentage; a dash where there was none.

    >>> change(80, 40), change(0, 0)
    ('50.0%', '-')

    """
    return f"{pruned / dense:.1%}" if dense else "-"


def percent(share: float | None) -> str:
    """Write a share with two digits that count; a dash for None.

    >>> percent(0.123), percent(0.0123), percent(0.00123), percent(0.00001), percent(None)
    ('12%', '1.2%', '0.12%', '< 0.01%', '-')

    """
    if share is None:
        return "-"
    value = 100 * share
    if value == 0:
        return "0%"
    if abs(value) < 0.01:
        return "< 0.01%"
    decimals = 0 if abs(value) >= 9.95 else 1 if abs(value) >= 0.995 else 2
    return f"{value:.{decimals}f}%"


def milliseconds(value: float) -> str:
    """Write a time of any size with three digits.

    >>> milliseconds(0.0709), milliseconds(12.34), milliseconds(2500)
    ('70.9 µs', '12.3 ms', '2.50 s')

    """
    if value < 0.09995:
        return f"{1000 * value:#.3g}".rstrip(".") + " µs"
    return f"{value:#.3g}".rstrip(".") + " ms" if value < 999.5 else f"{value / 1000:#.3g} s"


def duration(seconds: float) -> str:
    """Write a time that people wait for.

    >>> duration(0.34), duration(12.3), duration(100), duration(4000)
    ('0.3 s', '12 s', '1 min 40 s', '1 h 7 min')

    """
    if seconds < 9.5:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h" + (f" {minutes} min" if minutes else "")


def printable(text: str) -> str:
    r"""Write what does not show as letters do in the way Python would: control characters, and marks of direction.

    Names come from whoever made a file. In a terminal they could move the cursor, colour it, or begin a line of their
    own; on a page they could show other words in another order.

    Args:
        text: of one line; the end of a line is written out, too.

    >>> print(printable("conv\x1b[31m\n1\u202e\udcff Übung 層"))
    conv\x1b[31m\n1\u202e\udcff Übung 層

    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str | None = None) -> str:
    """Return a table for a notebook, each row with a heading; a long one says how many rows are not shown.

    Args:
        columns: headings.
        rows: cells, as text; HTML in them is escaped.
        caption: above the table.

    >>> page = html_table(("units",), [("<8>",)])
    >>> page[page.index("<tbody>") :]
    '<tbody><tr><th scope="row">&lt;8&gt;</th></tr></tbody></table>'

    """
    listed = list(rows)
    head = "".join(f'<th scope="col">{_shown(column)}</th>' for column in columns)
    body = "".join(_row(row) for row in listed[:_ROWS])
    if len(listed) > _ROWS:
        body += f'<tr><td colspan="{len(columns)}">and {len(listed) - _ROWS} more</td></tr>'
    title = "" if caption is None else f"<caption>{_shown(caption)}</caption>"
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(cells: Sequence[str]) -> str:
    first, *others = map(_shown, cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'


def _shown(text: str) -> str:
    return escape(printable(text))
