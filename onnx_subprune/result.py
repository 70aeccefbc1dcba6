"""The outcome of a pruning: the model, how it came about, and all of that as data."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from onnx_subprune import report
from onnx_subprune.budget import Curve
from onnx_subprune.calibration import HELD, Dataset, Statistics, open_data
from onnx_subprune.evaluate.comparison import Conditions, Measured, measure
from onnx_subprune.formatting import change, count, html_table, milliseconds
from onnx_subprune.model import Cost, operator_counts, save_model
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.group_documents import (
    comparisons_document,
    frozen_document,
    group_document,
    notices_document,
)
from onnx_subprune.network.verify import Rounding
from onnx_subprune.options import Options
from onnx_subprune.plan import Plan
from onnx_subprune.planning.course import Course
from onnx_subprune.planning.drop_search import Drop
from onnx_subprune.planning.latency import LatencyMet
from onnx_subprune.progress import Watch
from onnx_subprune.recovery import OutputErrors
from onnx_subprune.recovery.exact import Refit
from onnx_subprune.report import Document

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Result"]

# A curve is drawn a few centimetres wide.
_POINTS = 33
_DIGITS = 6


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A pruned model and how it came about.

    Attributes:
        model: the pruned model.
        plan: which units stay.
        dense: cost of the model as given.
        pruned: cost of the result; both measured on the models themselves.
        statistics: of the calibration; None where none was needed.
        analysis: the model taken apart.
        errors: share of the features' variance that the recovery does not explain, by consumer.
        warnings: what the user should know.
        options: how it was pruned.
        curves: what every group loses as units go, what the widths were chosen by; empty where a plan was applied.
        losses_at: where these losses are errors: at the network's `outputs`, or at the `consumers` of each group.
        fit: what came of the layers that were fitted to the dense network; None where none were.
        output_errors: how far the outputs are from the dense ones, with and without recovery; None where none was asked
            for, or without samples.
        rounding: how far rounding alone moves the dense network, and what the oracle allowed for it.
        latency: what the network takes of the dense one's time, where the target was one of latency.
        drop: the measurements for a target `drop`; None for other targets.
        course: what the run took, by phase, beside what it was expected to take.

    """

    model: onnx.ModelProto
    plan: Plan
    dense: Cost
    pruned: Cost
    statistics: Statistics | None
    analysis: Analysis
    errors: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    curves: tuple[Curve, ...] = ()
    losses_at: str = "consumers"
    fit: Refit | None = None
    output_errors: OutputErrors | None = None
    rounding: Rounding = field(default_factory=Rounding)
    latency: LatencyMet | None = None
    drop: Drop | None = None
    course: Course = field(default_factory=Course)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pruned model, whole or not at all.

        Args:
            path: of the `.onnx` file; the weights of a model beyond 2 GB go to `<name>.<digits>.data` beside it.

        Raises:
            OutputError: the file cannot be written there.

        """
        save_model(self.model, path)

    def measure(
        self,
        data: Any = None,
        *,
        labelled: Any = None,
        latency: bool = True,
        brief: bool = False,
        progress: Watch | None = None,
    ) -> Measured:
        """Measure the dense and the pruned model side by side, with the providers and threads of the run.

        Args:
            data: calibration inputs: the first sample, or as many as `latency_batch` says, is what latency is measured
                on (random numbers without), and all of them how close the outputs are.
            labelled: labelled data to measure top-1 accuracy on.
            latency: whether to measure how fast both are.
            brief: whether latency takes a second or so, without a profile, and outputs are not compared.
            progress: called with the name of a phase, the steps done in it and their number.

        Returns:
            The measurements; those that failed are named with their reasons.

        Raises:
            DataError: the data does not fit the model.

        """
        options = self.options
        conditions = Conditions(
            shapes=self.analysis.input_shapes if self.latency is None else self.latency.shapes,
            runtime=options.runtime,
            timed_samples=options.latency_batch or 1,
            seed=options.seed,
            outputs_at=self.analysis.outputs_at,
        )
        return measure(
            self.analysis.model,
            self.model,
            conditions,
            self._open_dataset(data, samples=options.samples, seed=options.seed),
            labelled=self._open_dataset(labelled),
            latency=latency,
            brief=brief,
            macs_share=self.pruned.macs / max(self.dense.macs, 1),
            progress=progress,
        )

    def _open_dataset(self, data: Any, **chosen: Any) -> Dataset | None:
        if data is None or isinstance(data, Dataset):
            return data
        return open_data(data, self.analysis.inputs, **chosen)

    def document(
        self, *, measured: Measured | None = None, command: Sequence[str] = (), source: str | None = None
    ) -> Document:
        """Return everything there is to say about the pruning as plain data: what `--json` prints.

        Args:
            measured: the dense and the pruned model side by side, where that was asked for.
            command: how it was asked for, as words.
            source: where the calibration data or statistics came from.

        """
        plan, analysis = self.plan, self.analysis
        return {
            "format": "onnx_subprune.report/1",
            "versions": report.versions(),
            "command": list(command),
            "target": plan.target,
            "select": plan.options.select,
            "recovery": plan.options.recovery,
            "ridge": plan.options.ridge,
            "options": {**self.options.document(), "target": plan.target},
            "fingerprint": plan.fingerprint,
            "input_shapes": {name: list(shape) for name, shape in analysis.input_shapes.items()},
            "dense": asdict(self.dense),
            "pruned": asdict(self.pruned),
            "operators": {"dense": operator_counts(analysis.model), "pruned": operator_counts(self.model)},
            "losses_at": self.losses_at if any(curve.loss is not None for curve in self.curves) else None,
            "groups": list(self._groups()),
            "frozen": [frozen_document(group) for group in analysis.structure.frozen],
            **comparisons_document(analysis.comparisons),
            **notices_document(analysis.structure, analysis.refusals, analysis.forms),
            "calibration": self._calibration(source),
            "errors": dict(self.errors),
            "fit": _fit(self.fit),
            "output_errors": None if self.output_errors is None else asdict(self.output_errors),
            "oracle": self.rounding.document(),
            "latency": None if self.latency is None else asdict(self.latency),
            **({} if self.drop is None else {"drop": asdict(self.drop)}),
            "warnings": list(self.warnings),
            **({} if (course := self.course.document()) is None else {"forecast": course}),
            **({} if measured is None else measured.document()),
        }

    def _groups(self) -> Iterator[Document]:
        """Yield every prunable group: what it is, what stays of it, and what it loses.

        `macs` and `macs_kept` are those of the nodes that make or read the group, so that a node counts in several
        groups. `loss` is at the chosen width, None where none was computed; `curve` holds some of the widths, the
        chosen among them, with the loss and the share of variance at each.
        """
        structure = self.analysis.structure
        kept = self.plan.widths
        gone = [name for name, units in kept.items() if not units]
        widths = {group.atom: kept[group.name] for group in structure.prunable}
        macs = structure.macs_touched(widths, structure.removal(gone) if gone else None)
        curves = {curve.group: curve for curve in self.curves}
        for group in structure.prunable:
            yield {
                **group_document(group),
                "entries": group.entries,
                "kept": kept[group.name],
                "kept_share": kept[group.name] / group.size,
                "macs_kept": macs.get(group.atom, 0),
                **_losses(curves.get(group.name), kept[group.name]),
            }

    def _calibration(self, source: str | None) -> Document | None:
        """Return what the statistics were taken on, and one in how many samples was held out to choose by, if any."""
        if self.statistics is None:
            return None
        held_out = HELD if self.fit is not None or (self.curves and self.losses_at == "outputs") else None
        statistics = self.statistics
        return {"source": source, "samples": statistics.samples, "taps": len(statistics.grams), "held_out": held_out}

    def report(
        self,
        path: str | os.PathLike[str],
        data: Any = None,
        *,
        labelled: Any = None,
        latency: bool = True,
        measured: Measured | None = None,
        command: Sequence[str] = (),
        progress: Watch | None = None,
    ) -> None:
        """Write a report, all or nothing: one self-contained page for `.html`, the same facts as data for `.json`.

        Args:
            path: where it goes.
            data: calibration inputs: the first sample is what latency is measured on, and all of them how close the
                outputs are to those of the dense model.
            labelled: labelled data to measure top-1 accuracy on.
            latency: whether to measure how fast both models are.
            measured: what `measure` gave, in the place of measuring again.
            command: how the run was asked for, to be shown.
            progress: called with the name of a phase, the steps done in it and their number.

        Raises:
            OptionError: the name ends in neither.
            OutputError: the file cannot be written.

        """
        report.check_name(path)
        measured = measured or self.measure(data, labelled=labelled, latency=latency, progress=progress)
        source = getattr(data, "source", data if isinstance(data, str) else None)
        report.write_report(self.document(measured=measured, command=command, source=source), path)

    def plot(self, what: str = "widths") -> Figure:
        """Return a matplotlib figure: `widths` before and after by group, or the loss `curves` with the chosen cut.

        Args:
            what: `widths` or `curves`.

        Raises:
            OptionError: there is no such figure, no curves, or no matplotlib.

        """
        return report.plot(self.document(), what)

    def __repr__(self) -> str:
        costs = ", ".join(f"{name} {after} ({share})" for name, _, after, share in self._costs())
        return f"<Result {self.plan.target}: {costs}; {_number_of_warnings(self.warnings)}>"

    def _repr_html_(self) -> str:
        costs = html_table(("", "dense", "pruned", "left"), self._costs(), f"Pruned to {self.plan.target}")
        notes = html_table(("warning",), [(line,) for line in self.warnings]) if self.warnings else ""
        return costs + self.plan._repr_html_() + notes

    def _costs(self) -> list[tuple[str, str, str, str]]:
        dense, pruned = self.dense, self.pruned
        rows = (
            ("MACs", dense.macs, pruned.macs, ""),
            ("parameters", dense.parameters, pruned.parameters, ""),
            ("size", dense.bytes, pruned.bytes, "B"),
        )
        costs = [(name, count(a, unit), count(b, unit), change(a, b)) for name, a, b, unit in rows]
        if self.latency is not None:
            before, after = milliseconds(self.latency.dense_ms), milliseconds(self.latency.pruned_ms)
            costs.append(("latency", before, after, f"{self.latency.measured:.1%}"))
        if self.drop is not None:
            fall, allowed = self.drop.fall, self.drop.allowed
            costs.append((f"fall of {self.drop.metric}", "", f"{fall:.2%}", f"{allowed:.2%} allowed"))
        return costs


def _number_of_warnings(warnings: Sequence[str]) -> str:
    return f"{len(warnings) or 'no'} warning{'' if len(warnings) == 1 else 's'}"


def _losses(curve: Curve | None, kept: int) -> Document:
    if curve is None:
        return {"loss": None, "variance": None, "curve": None}
    points = sorted({*np.linspace(0, curve.size, min(_POINTS, curve.size + 1)).round().astype(int).tolist(), kept})
    return {
        "loss": None if curve.loss is None else _rounded(curve.loss[kept]),
        "variance": _rounded(curve.share[kept]),
        "curve": {
            "kept": points,
            "loss": None if curve.loss is None else [_rounded(curve.loss[units]) for units in points],
            "variance": [_rounded(curve.share[units]) for units in points],
        },
    }


def _rounded(number: float) -> float:
    return float(f"{number:.{_DIGITS}g}")


def _fit(fit: Refit | None) -> Document | None:
    """Return what came of the layers that were fitted to the dense network, and why others were left."""
    return None if fit is None else {"layers": [asdict(layer) for layer in fit.layers], "left": dict(fit.left)}
