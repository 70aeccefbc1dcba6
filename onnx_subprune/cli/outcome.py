"""How `prune` and `apply` end: the outputs are written, both models measured if that was asked for, and all is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_subprune import report
from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.cli.outputs import save_outputs
from onnx_subprune.cli.terminal import Terminal
from onnx_subprune.errors import DataError
from onnx_subprune.evaluate.comparison import Measured
from onnx_subprune.model import input_specs, load_model
from onnx_subprune.pipeline import Result
from onnx_subprune.progress import Watch

__all__ = ["Ending", "labelled_data"]


@dataclass(frozen=True)
class Ending:
    """What to do with a result.

    Attributes:
        written: the outputs by the name of their option, None where not asked for.
        calib: the calibration data, if any.
        source: where the statistics came from, in words.
        labelled: data to measure accuracy on.
        latency: whether to measure it; None: where the report is a page.
        command: the words of the command line.
        dry: whether nothing may be written.

    """

    written: Mapping[str, Path | None]
    calib: str | None
    source: str
    labelled: Dataset | None = None
    latency: bool | None = None
    command: Sequence[str] = ()
    dry: bool = False

    def save(self, result: Result) -> None:
        """Write all outputs but the report."""
        if not self.dry:
            save_outputs(result, self.written)

    def measure(self, result: Result, progress: Watch | None) -> Measured | None:
        """Measure both models as far as asked for; None if nothing was."""
        path = self.written.get("--report")
        page = path is not None and report.is_page(path)
        latency = page if self.latency is None else self.latency
        if not (page or latency or self.labelled is not None):
            return None
        calib = self.calib if page or latency else None
        return result.measure(calib, labelled=self.labelled, latency=latency, progress=progress)

    def tell(self, result: Result, measured: Measured | None, screen: Terminal) -> None:
        """Write the report and print the result."""
        failures = {} if measured is None else measured.left
        unmeasured = [f"{metric} was not measured: {reason}" for metric, reason in failures.items()]
        screen.warn([*result.warnings, *(() if measured is None else measured.warnings), *unmeasured])
        document = result.document(measured=measured, command=self.command, source=self.source)
        if not self.dry and (path := self.written.get("--report")) is not None:
            report.write_report(document, path)
        tables = [report.cost_table(document), report.width_table(document)]
        if self.latency and measured is not None and measured.timing is not None:
            tables.append(report.operator_table(("dense", "pruned"), measured.timing.profiles))
        lines = (
            *report.notice_lines(document),
            *report.comparison_lines(document),
            report.output_error_line(document),
            report.drop_line(document),
            report.odd_widths_line(document),
        )
        screen.show(document, *tables, *filter(None, lines))


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
