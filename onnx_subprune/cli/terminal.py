"""What the user sees: results on stdout, everything else on stderr.

With `--json` stdout holds one document and nothing else, whatever a data script of the user prints meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console, RenderableType

from onnx_subprune import report
from onnx_subprune.errors import OutputError, SubpruneError
from onnx_subprune.progress import Watch

__all__ = ["Terminal", "terminal"]

_logger = logging.getLogger(__name__)

_WIDTH_OF_A_PIPE = 120
_SHOWN_WARNINGS = 5


@dataclass(frozen=True)
class Terminal:
    """Where a command prints; `stdout` is the real one, `quiet` leaves out progress and warnings."""

    stdout: TextIO
    json: bool
    quiet: bool

    def show(self, document: Mapping[str, Any], *parts: RenderableType) -> None:
        """Print the result: the document with `--json`, otherwise the parts.

        Whoever stops reading before the end (`| head`) has seen enough.

        Raises:
            OutputError: it cannot be printed: the disk is full.

        """
        try:
            self._print(document, parts)
        except BrokenPipeError:
            _print_no_more(self.stdout)
        except OSError as error:
            _print_no_more(self.stdout)
            raise OutputError(f"cannot print the result: {error.strerror}; send it to a place with room") from error

    def _print(self, document: Mapping[str, Any], parts: Sequence[RenderableType]) -> None:
        if self.json:
            self.stdout.write(report.to_json(document))
        else:
            width = None if self.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_PIPE
            console = Console(file=self.stdout, width=width, markup=False, highlight=False, emoji=False)
            # Captured, because rich ends the program at a closed pipe.
            with console.capture() as printed:
                for number, part in enumerate(parts):
                    console.print(*([""] if number else []), part, sep="\n")
            self.stdout.write(printed.get())
        # Here, where a closed pipe is still an exception and not a complaint of the interpreter at its end.
        self.stdout.flush()

    def warn(self, warnings: Iterable[str]) -> None:
        """Print a line for each warning, up to a few."""
        lines = list(warnings)
        for line in lines[:_SHOWN_WARNINGS]:
            _logger.warning("%s", line)
        if len(lines) > _SHOWN_WARNINGS:
            _logger.warning("%d more like these are in the report", len(lines) - _SHOWN_WARNINGS)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Watch | None]:
        """Show a bar for each phase, on a terminal only; the yielded function takes the progress of the run."""
        console = Console(stderr=True)
        if self.quiet or not console.is_terminal:
            yield None
            return
        with report.progress_bar(console) as tell:
            yield tell


def _print_no_more(stream: TextIO) -> None:
    """Send the rest nowhere: the interpreter would try again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):  # a stream of this process alone has no descriptor
        descriptor = stream.fileno()
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), descriptor)


@contextlib.contextmanager
def terminal(*, json: bool, verbose: int, quiet: bool) -> Iterator[Terminal]:
    """Set up logging and, with `json`, keep stdout for the document."""
    stdout = sys.stdout
    with _logs(verbose, quiet), contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext():
        try:
            yield Terminal(stdout, json, quiet)
        except SubpruneError as error:
            _logger.debug("where it came from", exc_info=error)
            raise
        except Exception as error:
            _logger.info("where it came from", exc_info=error)
            raise


class _Handler(logging.Handler):
    """Prints to whatever stderr is at the time: a progress bar stands in for it while it is drawn.

    Each warning is printed once: several steps of a command may come upon the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if record.levelno == logging.WARNING:
            if line in self._warned:
                return
            self._warned.add(line)
        print(line, file=sys.stderr)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


@contextlib.contextmanager
def _logs(verbose: int, quiet: bool) -> Iterator[None]:
    """Print the package's log on stderr: warnings; with -v what it does; with -vv all; with -q errors only."""
    package = logging.getLogger("onnx_subprune")
    handler = _Handler()
    handler.setFormatter(_Formatter())
    before = package.level
    package.setLevel(logging.ERROR if quiet else max(logging.DEBUG, logging.WARNING - 10 * verbose))
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before)
