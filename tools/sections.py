"""Sections of a Markdown page that several tools write."""

from __future__ import annotations

from pathlib import Path

__all__ = ["put"]


def put(text: str, page: Path) -> None:
    """Put a section (`text`, from its `## ` line on) in the place of the one of that name, or at the end."""
    heading = text[: text.index("\n") + 1]
    before, _, after = page.read_text(encoding="utf-8").partition(heading)
    rest = after[after.index("\n## ") + 1 :] if "\n## " in after else ""
    page.write_text(before.rstrip("\n") + "\n\n" + text + (f"\n{rest}" if rest else ""), encoding="utf-8")
