"""How `prune` and `apply` end: both models are measured if that was asked for, the outputs written, and all is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import RenderableType

from onnx_subprune import report
from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.cli.outputs import save_outputs
from onnx_subprune.cli.terminal import Terminal
from onnx_subprune.errors import DataError
from onnx_subprune.evaluate.comparison import Measured
from onnx_subprune.model import input_specs, load_model, together
from onnx_subprune.network import TOLERANCE
from onnx_subprune.pipeline import Result
from onnx_subprune.progress import Watch

__all__ = ["Ending", "labelled_data"]


_BRIEFLY = 1 << 30
"""Bytes of a model that is timed where nobody asked: the sessions hold it and the pruned one whole."""


@dataclass(frozen=True)
class Ending:
    """What to do with a result.

    Attributes:
        written: the outputs by the name of their option, None where not asked for.
        calib: the calibration data, if any.
        source: where the statistics came from, in words.
        labelled: data to measure accuracy on.
        timing: whether to measure latency at length, with a profile; None: so where the report is a page, else briefly.
        command: the words of the command line.
        dry: whether nothing may be written.

    """

    written: Mapping[str, Path | None]
    calib: str | None
    source: str
    labelled: Dataset | None = None
    timing: bool | None = None
    command: Sequence[str] = ()
    dry: bool = False

    def measure(self, result: Result, progress: Watch | None) -> Measured | None:
        """Measure both models as far as asked for; None if nothing was."""
        path = self.written.get("--report")
        page = path is not None and report.is_page(path)
        brief = self.timing is None and not page
        # A target of latency has measured it already; a model that is as it was has nothing to show.
        unknown = result.latency is None and result.plan.removes and result.dense.bytes <= _BRIEFLY
        latency = unknown if brief else self.timing is not False
        if not (page or latency or self.labelled is not None):
            return None
        calib = self.calib if page or latency else None
        return result.measure(calib, labelled=self.labelled, latency=latency, brief=brief, progress=progress)

    def finish(self, result: Result, measured: Measured | None, screen: Terminal) -> None:
        """Write all outputs and print the result: what fails on the way leaves every file as it was.

        Raises:
            OutputError: an output cannot be written, or the result not printed.

        """
        self._warn(result, measured, screen)
        document = result.document(measured=measured, command=self.command, source=self.source)
        with together():
            if not self.dry:
                save_outputs(result, document, self.written)
            screen.show(document, *self._parts(document, measured))

    @staticmethod
    def _warn(result: Result, measured: Measured | None, screen: Terminal) -> None:
        failures = {} if measured is None else measured.left
        unmeasured = [f"{metric} was not measured: {reason}" for metric, reason in failures.items()]
        screen.warn([*result.warnings, *(() if measured is None else measured.warnings), *unmeasured])

    def _parts(self, document: report.Document, measured: Measured | None) -> Iterator[RenderableType]:
        """Yield the tables and lines that tell the result."""
        if (speed := report.speed_line(document)) is not None:
            yield speed
        yield report.cost_table(document)
        yield report.width_table(document)
        if self.timing and measured is not None and measured.timing is not None and measured.timing.profiles:
            yield report.operator_table(("dense", "pruned"), measured.timing.profiles)
        lines = (
            *report.notice_lines(document),
            *report.comparison_lines(document),
            report.oracle_line(document, above=TOLERANCE),
            report.output_error_line(document),
            report.drop_line(document),
            report.forecast_line(document),
            report.odd_widths_line(document),
        )
        yield from filter(None, lines)


def labelled_data(data: str | None, model: Path) -> Dataset | None:
    """Open labelled data before the long work starts.

    Raises:
        DataError: it does not fit the model, or has no labels.

    """
    if data is None:
        return None
    opened = open_data(data, input_specs(load_model(model, resident=False)))
    if opened.labels is None:
        raise DataError(f"{opened.source}: labels expected, found none; add an array 'labels' of class numbers")
    return opened
