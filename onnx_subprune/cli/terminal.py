"""What the user sees: results on stdout, everything else on stderr.

With `--json` stdout holds one document and nothing else, whatever a data script of the user prints meanwhile. Warnings
and logs of libraries are for those who ask for them with `-v`. A terminal takes all names of a model for letters
(`formatting.printable`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from onnx_subprune import report
from onnx_subprune.cli.streams import UNREAD, abandon
from onnx_subprune.errors import DataError, OutputError, SubpruneError
from onnx_subprune.formatting import printable
from onnx_subprune.progress import NOTE, Watch

__all__ = ["Terminal", "terminal"]

_logger = logging.getLogger(__name__)

_PACKAGE = "onnx_subprune"
_SILENT = logging.CRITICAL + 1
_WIDTH_OF_A_PIPE = 120
_SHOWN_WARNINGS = 5


@dataclass
class Terminal:
    """Where a command prints.

    Attributes:
        stdout: the real one.
        json: whether the document is printed.
        quiet: leaves out progress and warnings.
        unread: whether the reader of stdout is gone.

    """

    stdout: TextIO
    json: bool
    quiet: bool
    unread: bool = False

    def show(self, document: Mapping[str, Any], *parts: RenderableType) -> None:
        """Print the result: the document with `--json`, otherwise the parts.

        Whoever stops reading before the end (`| head`) has seen enough: the command goes on, and says so at its end.

        Raises:
            OutputError: it cannot be printed: the disk is full.

        """
        try:
            if self.json:
                self.stdout.write(report.to_json(document, letters=_takes_letters(self.stdout)))
            else:
                self._print(parts)
            # Here, where what goes wrong is still an exception and not a complaint of the interpreter at its end.
            self.stdout.flush()
        except BrokenPipeError:
            abandon(self.stdout)
            self.unread = True
        except OSError as error:
            abandon(self.stdout)
            raise OutputError(f"cannot print the result: {error.strerror}; send it to a place with room") from error

    def _print(self, parts: Sequence[RenderableType]) -> None:
        width = None if self.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_A_PIPE
        console = _Console(file=self.stdout, width=width, markup=False, highlight=False, emoji=False)
        for number, part in enumerate(parts):
            drawn = Text(printable(part)) if isinstance(part, str) else part
            console.print(*([""] if number else []), drawn, sep="\n")

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


@contextlib.contextmanager
def terminal(*, json: bool, verbose: int, quiet: bool) -> Iterator[Terminal]:
    """Set up logging and, with `json`, keep stdout for the document."""
    stdout = sys.stdout
    with (
        _logs(verbose, quiet),
        _warnings_logged(),
        contextlib.redirect_stdout(sys.stderr) if json else contextlib.nullcontext(),
    ):
        screen = Terminal(stdout, json, quiet)
        try:
            yield screen
        except SystemExit as ended:
            raise DataError(
                f"expected the script to return its data, found that it ended the program with {ended.code!r}; "
                "take sys.exit() out of it"
            ) from ended
        except SubpruneError as error:
            _logger.debug("where it came from", exc_info=error)
            raise
        except Exception as error:
            _logger.info("where it came from", exc_info=error)
            raise
    if screen.unread:
        raise typer.Exit(UNREAD)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Hand the error on, where others would end the program."""
        raise BrokenPipeError


class _Handler(logging.Handler):
    """Prints to whatever stderr is at the time: a progress bar stands in for it while it is drawn.

    Each warning is printed once: several steps of a command may come upon the same.
    """

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._warned: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if record.levelno == logging.WARNING:
            if line in self._warned:
                return
            self._warned.add(line)
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr)


class _Formatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is that of the library
        level = "note" if record.levelno == NOTE else record.levelname.lower()
        return f"{level}: {printable(super().formatMessage(record))}"

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the same
        return "\n".join(printable(line) for line in super().formatException(ei).splitlines())


def _is_of_a_library(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] != _PACKAGE


@contextlib.contextmanager
def _logs(verbose: int, quiet: bool) -> Iterator[None]:
    """Print the package's log on stderr: notes and warnings; with -v what it does; with -vv all; with -q errors only.

    What libraries warn of is printed with -v, and with -vv what they do.
    """
    level = logging.ERROR if quiet else max(logging.DEBUG, logging.WARNING - 10 * verbose)
    of_libraries = level + 10 if verbose and not quiet else _SILENT
    own = level if quiet else min(level, NOTE)
    with _logged(logging.getLogger(_PACKAGE), own), _logged(logging.getLogger(), of_libraries, _is_of_a_library):
        yield


@contextlib.contextmanager
def _logged(
    logger: logging.Logger, level: int, accepts: Callable[[logging.LogRecord], bool] | None = None
) -> Iterator[None]:
    """Print what a logger says from a level upwards, as far as it is accepted."""
    handler = _Handler(level)
    handler.setFormatter(_Formatter())
    if accepts is not None:
        handler.addFilter(accepts)
    before = logger.level
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextlib.contextmanager
def _warnings_logged() -> Iterator[None]:
    """Log the warnings of Python code, NumPy's among them, for `-v`; they are of no use to others."""

    def log(message: object, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        _logger.info("%s: %s (%s:%d)", category.__name__, message, filename, lineno)

    before = warnings.showwarning
    warnings.showwarning = log  # type: ignore[assignment]  # its last two arguments may be left out
    try:
        yield
    finally:
        warnings.showwarning = before


def _takes_letters(stream: TextIO) -> bool:
    """Whether a stream can print all letters there are."""
    return (getattr(stream, "encoding", None) or "utf-8").lower().startswith("utf")
