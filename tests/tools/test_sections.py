"""A section of a page takes the place of the one of its name, and the others stay."""

from __future__ import annotations

from pathlib import Path

from sections import put

PAGE = "# Page\n\nIntroduction.\n\n## First\n\nold\n\n## Second\n\nstays\n"


def test_a_section_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    put("## First\n\nnew\n", page)
    assert page.read_text(encoding="utf-8") == PAGE.replace("old", "new")


def test_the_last_section_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    put("## Second\n\nnew\n", page)
    assert page.read_text(encoding="utf-8") == PAGE.replace("stays", "new")


def test_a_new_section_goes_to_the_end(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    put("## Third\n\nmore\n", page)
    assert page.read_text(encoding="utf-8") == PAGE + "\n## Third\n\nmore\n"


def test_writing_twice_is_writing_once(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    for _ in range(2):
        put("## First\n\nnew\n", page)
        put("## Third\n\nmore\n", page)
    assert page.read_text(encoding="utf-8").count("## ") == 3
