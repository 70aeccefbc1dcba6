"""Documents name files that exist, show the floors as they are, and speak plainly."""

from __future__ import annotations

import re
from pathlib import Path

import draw_floors
import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Paths are written from the root, from the package, or from the folder that the sentence is about.
BASES = ("", "onnx_subprune", "onnx_subprune/recovery/exact", "passes", "tools", "tests", "docs")
# What a document's examples call files of the reader's own.
INVENTED = {"file.py"}
UNCLEAR = ("what is", "what was", "of which", "besides", "room", "rooms")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def paths(text: str) -> list[str]:
    """Return the Python files and the folders that a text names in backticks, placeholders left out."""
    quoted = [word for span in re.findall(r"`([^`\n]+)`", text) for word in span.split()]
    return [word for word in quoted if re.fullmatch(r"[\w./-]+(\.py|/)", word) and not word.startswith("/")]


def unclear(text: str) -> list[str]:
    """Return the phrases that make a reader look twice, in the prose of a text."""
    prose = " ".join(CODE.sub("", text).lower().split())
    return [phrase for phrase in UNCLEAR if re.search(rf"\b{phrase}\b", prose)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_named_exists(document: Path) -> None:
    named = set(paths(document.read_text(encoding="utf-8"))) - INVENTED
    missing = [name for name in sorted(named) if not any((ROOT / base / name).exists() for base in BASES)]
    assert not missing


def test_a_file_that_is_gone_is_seen() -> None:
    assert paths("see `structure/dims.py` and `rules/<family>.py`, or `python tools/zoo_table.py` in `passes/`") == [
        "structure/dims.py",
        "tools/zoo_table.py",
        "passes/",
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_sentences_need_no_decoding(document: Path) -> None:
    assert not unclear(document.read_text(encoding="utf-8"))


def test_unclear_phrases_are_seen_in_prose_and_not_in_code() -> None:
    assert unclear("It says\nwhat is kept, `of which`.") == ["what is"]


def test_every_package_has_a_box_and_every_box_words() -> None:
    rows = draw_floors.floors((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = [name for row in rows for name in row]
    assert sorted(names) == sorted(draw_floors.WORDS)
    assert {package for _, package in draw_floors.STAGES} <= set(names)


def test_the_picture_of_the_floors_is_up_to_date() -> None:
    rows = draw_floors.floors((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert draw_floors.PICTURE.read_text(encoding="utf-8") == draw_floors.picture(rows)


def test_a_floor_that_moves_changes_the_picture() -> None:
    assert draw_floors.picture([["cli"], ["errors"]]) != draw_floors.picture([["errors"], ["cli"]])
