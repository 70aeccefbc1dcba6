"""How far a pruned model's outputs are from the dense model's, without labels.

For every output, over all samples: relative error ‖p - d‖ / ‖d‖, cosine, and the largest absolute difference. Outputs
[samples, classes] also count how often the largest class agrees, and take the mean Kullback-Leibler divergence
KL(softmax d ‖ softmax p) in nats; an output that already holds probabilities is not normalised a second time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.calibration import DEFAULT_BATCH_SIZE, Dataset
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.formatting import html_table
from onnx_subprune.model import open_session, run

__all__ = ["Fidelity", "OutputFidelity", "fidelity"]

logger = logging.getLogger(__name__)

Array = NDArray[Any]
_TINY = 1e-30
# How far from 1 a row of probabilities in half precision may sum.
_SUM_TOLERANCE = 5e-3


@dataclass(frozen=True)
class OutputFidelity:
    """One output of the pruned model against the dense one.

    Attributes:
        relative_l2: ‖pruned - dense‖ / ‖dense‖; infinite if the pruned output is not finite where the dense one is.
        cosine: of the two outputs as vectors; 1 if both are zero.
        max_abs: largest absolute difference.
        agreement: share of samples whose largest class is the same, or None if the output is not [samples, classes].
        kl: mean KL(dense ‖ pruned) in nats, or None likewise.

    """

    relative_l2: float
    cosine: float
    max_abs: float
    agreement: float | None = None
    kl: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """How near the outputs of one model are to those of another, on the same samples.

    Attributes:
        outputs: by name of the output.
        samples: number of them.

    """

    outputs: dict[str, OutputFidelity]
    samples: int

    def _repr_html_(self) -> str:
        rows = [
            (
                name,
                f"{output.relative_l2:.2e}",
                f"{output.cosine:.6f}",
                "-" if output.agreement is None else f"{output.agreement:.2%}",
            )
            for name, output in self.outputs.items()
        ]
        head = ("output", "relative error", "cosine", "same class")
        return html_table(head, rows, f"Fidelity on {self.samples} samples")

    @property
    def relative_l2(self) -> float:
        """The largest relative error of any output."""
        return max(output.relative_l2 for output in self.outputs.values())


def fidelity(
    dense: onnx.ModelProto,
    pruned: onnx.ModelProto,
    data: Dataset,
    *,
    providers: Sequence[str] = ("cpu",),
    batch_size: int = DEFAULT_BATCH_SIZE,
    threads: int | None = None,
) -> Fidelity:
    """Compare the outputs of two models on the same samples.

    Args:
        dense: the reference.
        pruned: gives outputs of the same names and shapes.
        data: samples for both; labels are not read.
        providers: execution providers, most wanted first.
        batch_size: samples per run.
        threads: intra-op threads of the runtime; None for its own choice.

    Returns:
        Errors, cosines and, for outputs [samples, classes], agreement of every output that holds numbers.

    Raises:
        ModelError: the models' outputs differ in name, or none of them holds numbers.
        DataError: a sample does not fit, or an output differs in shape.

    """
    sessions = [open_session(model, providers, threads=threads) for model in (dense, pruned)]
    names = [output.name for output in sessions[0].get_outputs()]
    if names != (others := [output.name for output in sessions[1].get_outputs()]):
        raise ModelError(
            f"the same outputs expected in both models, found {names} and {others}; compare like with like"
        )
    sums: dict[str, _Sums] = {}
    samples = 0
    for feeds in data.batches(batch_size):
        expected, given = (run(session, feeds) for session in sessions)
        for name in _numeric(expected):
            sums.setdefault(name, _Sums(name)).add(expected[name], given[name])
        samples += data.samples_in(feeds)
    if not sums:
        raise ModelError(f"an output that holds numbers expected, found {names}; such models cannot be compared")
    return Fidelity({name: total.result() for name, total in sums.items()}, samples)


def _numeric(outputs: Mapping[str, Any]) -> list[str]:
    """Return the names of the outputs that are tensors of numbers; sequences and text are not compared."""
    names = [name for name, value in outputs.items() if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"]
    for name in outputs.keys() - set(names):
        logger.debug("output '%s' holds no numbers and is not compared", name)
    return names


class _Sums:
    """Sums over batches, in float64, from which one output's figures follow."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._error = self._dense = self._pruned = self._product = self._largest = 0.0
        self._rows = self._agreed = 0
        self._kl = 0.0
        self._classes = True

    def add(self, dense: Array, pruned: Array) -> None:
        if dense.shape != pruned.shape:
            raise DataError(
                f"output '{self._name}' expected of shape {dense.shape} as in the dense model, found {pruned.shape}; "
                "compare models that answer alike"
            )
        is_float = dense.dtype.kind == "f"
        dense, pruned = dense.astype(np.float64), pruned.astype(np.float64)
        self._add_distances(dense, pruned)
        self._classes = self._classes and is_float and dense.ndim == 2 and dense.shape[1] > 1
        if self._classes:
            self._add_classes(dense, pruned)

    def _add_distances(self, dense: Array, pruned: Array) -> None:
        with np.errstate(invalid="ignore"):
            # Masked logits are -inf in both: equal, and no part of any norm.
            difference = np.where(dense == pruned, 0.0, pruned - dense).ravel()
        difference[np.isnan(difference)] = np.inf
        both = np.isfinite(dense) & np.isfinite(pruned)
        a, b = dense[both], pruned[both]
        self._error += float(difference @ difference)
        self._largest = max(self._largest, float(np.max(np.abs(difference), initial=0.0)))
        self._dense += float(a @ a)
        self._pruned += float(b @ b)
        self._product += float(a @ b)

    def _add_classes(self, dense: Array, pruned: Array) -> None:
        self._rows += len(dense)
        self._agreed += int(np.sum(dense.argmax(axis=1) == pruned.argmax(axis=1)))
        logs = _log_probabilities if _are_probabilities(dense) else _log_softmax
        p, q = logs(dense), logs(pruned)
        with np.errstate(invalid="ignore"):
            # A class of probability zero adds nothing, whatever its logarithm.
            terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
        total = float(terms.sum())
        self._kl += math.inf if math.isnan(total) else total

    def result(self) -> OutputFidelity:
        norms = math.sqrt(self._dense * self._pruned)
        zero = 1.0 if self._dense == self._pruned else 0.0
        relative = math.sqrt(self._error / self._dense) if self._dense else (math.inf if self._error else 0.0)
        counted = self._classes and self._rows
        return OutputFidelity(
            relative_l2=relative,
            cosine=self._product / norms if norms else zero,
            max_abs=self._largest,
            agreement=self._agreed / self._rows if counted else None,
            # Rounding can leave a divergence of nothing just below zero.
            kl=max(0.0, self._kl / self._rows) if counted else None,
        )


def _are_probabilities(x: Array) -> bool:
    return bool(np.all(x >= 0) and np.all(np.abs(x.sum(axis=1) - 1) < _SUM_TOLERANCE))


def _log_probabilities(x: Array) -> Array:
    return np.log(np.maximum(x, _TINY))


def _log_softmax(x: Array) -> Array:
    with np.errstate(invalid="ignore"):
        shifted = x - x.max(axis=1, keepdims=True)
        result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
