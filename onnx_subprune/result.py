"""What a pruning run gives back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx

from onnx_subprune.budget import Curve, Trial
from onnx_subprune.calibration import Statistics
from onnx_subprune.formatting import change, count, html_table, milliseconds
from onnx_subprune.model import Cost, save_model
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options
from onnx_subprune.plan import Plan
from onnx_subprune.planning.latency import LatencyMet
from onnx_subprune.progress import Watch
from onnx_subprune.recovery.exact import Refit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from onnx_subprune.evaluate.comparison import Measured

__all__ = ["Drop", "Result"]


@dataclass(frozen=True)
class Drop:
    """By how much the metric of a target `drop` fell.

    Attributes:
        metric: what it is: `top-1` on labelled data, `same class` (the share of calibration samples whose largest
            class is that of the dense network), or `given`, a function of the caller.
        allowed: the fall that was allowed.
        fall: the fall measured on the result.
        cost: what was made as small as that allows, one of `options.COSTS`.
        tried: the shares of it that were tried, and the falls measured there.

    """

    metric: str
    allowed: float
    fall: float
    cost: str
    tried: tuple[Trial, ...]


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
        latency: what the network takes of the dense one's time, where the target was one of latency.
        drop: what was measured for a target `drop`; None for other targets.

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
    latency: LatencyMet | None = None
    drop: Drop | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pruned model, all or nothing; OutputError if that is not possible."""
        save_model(self.model, path)

    def measure(
        self, data: Any = None, *, labelled: Any = None, latency: bool = True, progress: Watch | None = None
    ) -> Measured:
        """Measure the dense and the pruned model side by side: see `measured.measure`."""
        from onnx_subprune.evaluate.comparison import measure  # noqa: PLC0415  (runs models, which a result alone does not)

        return measure(self, data, labelled=labelled, latency=latency, progress=progress)

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
        from onnx_subprune import report  # noqa: PLC0415  (tables and templates, which pruning does not need)

        report.check_name(path)
        found = measured or self.measure(data, labelled=labelled, latency=latency, progress=progress)
        source = getattr(data, "source", data if isinstance(data, str) else None)
        report.write_report(report.as_dict(self, measured=found, command=command, source=source), path)

    def plot(self, what: str = "widths") -> Figure:
        """Return a matplotlib figure: `widths` before and after by group, or the loss `curves` with the chosen cut.

        Raises:
            OptionError: there is no such figure, no curves, or no matplotlib.

        """
        from onnx_subprune import report  # noqa: PLC0415  (as above)

        return report.plot(self, what)

    def __repr__(self) -> str:
        costs = ", ".join(f"{name} {after} ({left})" for name, _, after, left in self._costs())
        return f"<Result {self.plan.target}: {costs}; {_counted(self.warnings)}>"

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
        found = [(name, count(a, unit), count(b, unit), change(a, b)) for name, a, b, unit in rows]
        if self.latency is not None:
            before, after = milliseconds(self.latency.dense_ms), milliseconds(self.latency.pruned_ms)
            found.append(("latency", before, after, f"{self.latency.measured:.1%}"))
        if self.drop is not None:
            fall, allowed = self.drop.fall, self.drop.allowed
            found.append((f"fall of {self.drop.metric}", "", f"{fall:.2%}", f"{allowed:.2%} allowed"))
        return found


def _counted(warnings: Sequence[str]) -> str:
    return f"{len(warnings) or 'no'} warning{'' if len(warnings) == 1 else 's'}"
