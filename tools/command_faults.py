"""What a command may leave behind: its exit code, its lines, its document, its report and its model; and running it.

A command may succeed, refuse with one line that gives the reason (exit 1), or say which target is in reach (exit 3).
Everything else is a fault: an internal error, a line that a library prints, a result that is not JSON where JSON was
asked for, a page that is not whole, a file that a refusal leaves, two minutes of processor time and more.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from onnx_subprune.cli import run

SECONDS = 120
# Words that only a fault of the program's own prints.
_OWN_FAULT = re.compile(r"internal error|report this|Traceback")
# Values that were not there, or markup that was not taken for markup.
_ODD = re.compile(r"\b(nan|None(?!\.)|inf|Undefined)\b|\[/")
_OPEN_TAGS = frozenset({"meta", "link", "br", "wbr", "hr", "img", "input", "col"})


@dataclass(frozen=True)
class Printed:
    """What a command left: its exit code, both streams, and seconds of processor time."""

    code: int
    out: str
    err: str
    seconds: float


def run_command(words: Sequence[object], seconds: float = SECONDS) -> Printed:
    """Run a command line in this process; what libraries write past Python is caught too.

    Args:
        words: after the name of the program.
        seconds: of processor time, after which the command is broken off with an error that is none of its own.

    """
    start = time.process_time()
    with _captured() as streams, _limited(seconds):
        code = run([str(word) for word in words])
    return Printed(code, *(stream.getvalue() for stream in streams), time.process_time() - start)


def fault_of(printed: Printed, *, form: str, report: Path | None, written: Path | None) -> str:
    """Return what is wrong with what a command left; empty where nothing is."""
    checks = (_streams_fault(printed), _output_fault(printed, form), _files_fault(printed, form, report, written))
    return " ".join("; ".join(filter(None, checks)).split())


def _streams_fault(printed: Printed) -> str:
    if printed.code not in (0, 1, 3):
        return f"exit code {printed.code}: {printed.err.strip()[-300:]}"
    lines = [line for line in printed.err.splitlines() if not line.startswith("warning: ")]
    if own := _OWN_FAULT.search(printed.err):
        return f"{own[0]}: {printed.err.strip()[-600:]}"
    expected = 0 if printed.code == 0 else 1
    if len(lines) != expected or not all(line.startswith("error: ") for line in lines):
        return f"printed beside its own lines: {' / '.join(lines)[:600]}"
    return ""


def _output_fault(printed: Printed, form: str) -> str:
    if printed.code:
        return f"printed a result and refused: {printed.out[:100]}" if printed.out else ""
    if form == "text":
        odd = _ODD.search(printed.out)
        return f"prints '{odd[0]}'" if odd else "" if printed.out.strip() else "printed nothing"
    try:
        _strict(printed.out)
    except ValueError as error:
        return f"no JSON: {error}"
    return ""


def _files_fault(printed: Printed, form: str, report: Path | None, written: Path | None) -> str:
    for path in (report, written):
        if path is not None and path.exists() != (printed.code == 0):
            return f"exit code {printed.code}, and {path.name} is {'there' if path.exists() else 'not there'}"
    if report is None or printed.code:
        return ""
    text = report.read_text(encoding="utf-8")
    if report.suffix == ".html":
        return page_fault(text)
    try:
        document = _strict(text)
    except ValueError as error:
        return f"{report.name} is no JSON: {error}"
    same = form != "json" or document == _strict(printed.out)
    return "" if same else f"{report.name} differs from what was printed"


def _strict(text: str) -> object:
    """Read JSON as other programs do: NaN and Infinity are no part of it."""

    def refuse(word: str) -> object:
        raise ValueError(f"{word} is no number")

    return json.loads(text, parse_constant=refuse)


def page_fault(text: str) -> str:
    """Return what is wrong with a page: a tag that is not closed, a value that is not there."""
    page = _Page()
    page.feed(text)
    page.close()
    odd = _ODD.search(page.text)
    if page.wrong or page.open:
        return f"page with a tag left open or closed twice: {[*page.wrong, *page.open][0]}"
    return f"page says '{page.text[max(0, odd.start() - 30) : odd.end() + 30]}'" if odd else ""


class _Page(HTMLParser):
    """The tags that are open, those that close none, and the text between."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the base class's
        if tag not in _OPEN_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when the block has taken so many seconds of processor time, on this thread and others."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def _captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Catch stdout and stderr, of Python and of the process; what they got is in the yielded texts afterwards."""
    texts = (io.StringIO(), io.StringIO())
    before = (sys.stdout, sys.stderr)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in texts]
        for stream in before:
            stream.flush()
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number, file in zip((1, 2), files, strict=True):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = files
            yield texts
        finally:
            sys.stdout, sys.stderr = before
            for number, copy, file, text in zip((1, 2), kept, files, texts, strict=True):
                file.flush()
                os.dup2(copy, number)
                os.close(copy)
                file.seek(0)
                text.write(file.read())
