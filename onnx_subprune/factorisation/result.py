"""The outcome of a factorisation: the model, how it came about, and all of that as data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import onnx

from onnx_subprune import report
from onnx_subprune.calibration import Statistics
from onnx_subprune.factorisation.ranks import RankedLayer
from onnx_subprune.model import Cost, operator_counts, save_model
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.group_documents import comparisons_document
from onnx_subprune.options import Target

__all__ = ["Factorisation"]


@dataclass(frozen=True, eq=False)
class Factorisation:
    """A factorised model and how it came about.

    Attributes:
        model: the factorised model.
        target: that the ranks meet.
        layers: those that can be factorised, in graph order.
        left: why every other node with products was left alone, by name.
        dense: cost of the model as given.
        pruned: cost of the result; both measured on the models themselves.
        statistics: of the calibration.
        analysis: the model taken apart.
        warnings: for the user.

    """

    model: onnx.ModelProto
    target: Target
    layers: tuple[RankedLayer, ...]
    left: dict[str, str]
    dense: Cost
    pruned: Cost
    statistics: Statistics
    analysis: Analysis
    warnings: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, all or nothing.

        Args:
            path: of the file.

        Raises:
            OutputError: the file cannot be written.

        """
        save_model(self.model, path)

    def document(self, *, command: Sequence[str] = (), source: str | None = None) -> report.Document:
        """Return everything there is to say about the factorisation as plain data: what `--json` prints.

        Args:
            command: how it was asked for, as words.
            source: where the calibration data or statistics came from.

        """
        analysis, statistics = self.analysis, self.statistics
        return {
            "format": "onnx_subprune.factorise/1",
            "versions": report.versions(),
            "command": list(command),
            "target": str(self.target),
            "fingerprint": analysis.fingerprint,
            "input_shapes": {name: list(shape) for name, shape in analysis.input_shapes.items()},
            "dense": asdict(self.dense),
            "pruned": asdict(self.pruned),
            "operators": {"dense": operator_counts(analysis.model), "pruned": operator_counts(self.model)},
            "layers": [{**asdict(layer), "macs_kept": layer.macs_kept} for layer in self.layers],
            "left": dict(self.left),
            **comparisons_document(analysis.comparisons),
            "calibration": {"source": source, "samples": statistics.samples, "taps": len(statistics.grams)},
            "warnings": list(self.warnings),
        }
