"""Fit the corrections of all consumers that lose features, one for each stored weight.

Consumers that share a weight share its correction: their Gram matrices are added, so the fit serves all of them. A
weight that is also used in another way (an embedding tied to the output projection) cannot be corrected without
changing that other use; it is left as it is and the reason reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_subprune.structure import PASSED_THROUGH, RECURRENT_STATES, Atom, Consumer, Structure, features_of, keep_mask
from onnx_subprune.subspace.least_squares import recover

__all__ = ["Correction", "Fit", "Pending", "corrected", "fit_corrections", "intercept_is_exact"]


@dataclass(frozen=True, eq=False)
class Fit:
    """The affine maps x ≈ A x_S + c of the features of consumers that share one weight.

    Attributes:
        consumers: the nodes; all read the same stored weight along the same axis.
        outer: runs of features on the contracted axis that share the maps.
        kept: bool [blocks, d].
        removed: for each block [d - k, k] float64, the rows of A that belong to removed features; those of kept ones
            are the identity. None for a block that goes as a whole.
        intercepts: [blocks, d] float64, c.
        error: share of the features' variance that the maps do not explain, the mean over blocks.

    """

    consumers: tuple[Consumer, ...]
    outer: int
    kept: NDArray[np.bool_]
    removed: tuple[NDArray[np.float64] | None, ...]
    intercepts: NDArray[np.float64]
    error: float

    def solve(self) -> Fit:
        """Return the fit itself, which is solved already."""
        return self


@dataclass(eq=False)
class Pending:
    """A fit that is worked out when it is asked for, so that one is in memory at a time.

    Attributes:
        consumers: the nodes; all read the same stored weight along the same axis.
        outer: runs of features on the contracted axis that share the maps.
        kept: bool [blocks, d].
        live: bool [blocks], which of the blocks stay.
        grams: sums of affine second moments [blocks, d+1, d+1], one array for each consumer.
        ridge: relative strength, see `recover`.
        error: as in `Fit`, once it has been worked out.

    """

    consumers: tuple[Consumer, ...]
    outer: int
    kept: NDArray[np.bool_]
    live: NDArray[np.bool_]
    grams: tuple[NDArray[np.float64], ...]
    ridge: float
    error: float | None = None

    def solve(self) -> Fit:
        """Work the fit out."""
        total = self.grams[0] if len(self.grams) == 1 else np.sum(self.grams, axis=0)
        fit = _fit(self.consumers, self.outer, self.kept, total, live=self.live, ridge=self.ridge)
        self.error = fit.error
        return fit


Correction: TypeAlias = Fit | Pending


def fit_corrections(
    structure: Structure,
    keeps: Mapping[Atom, NDArray[np.bool_]],
    grams: Mapping[Consumer, NDArray[np.float64]],
    ridge: float,
    consumers: Iterable[Consumer] | None = None,
) -> tuple[list[Pending], list[str]]:
    """Prepare the fit of every consumer that loses features.

    Args:
        structure: of the graph.
        keeps: for each Atom that loses units, bool [size].
        grams: sums of affine second moments [blocks, d+1, d+1] at the consumers.
        ridge: relative strength, see `recover`.
        consumers: in graph order, all that read these units; None for all of the graph.

    Returns:
        The fits to solve, and a line for each weight that could not be corrected.

    """
    fits: list[Pending] = []
    refusals: list[str] = []
    for sharing in _losing(structure, keeps, structure.consumers if consumers is None else consumers):
        reason = _refusal(sharing)
        if reason is not None:
            refusals.append(reason)
            continue
        features = features_of(structure, sharing[0])
        kept, live = features.kept(keeps), keep_mask(sharing[0].blocks, keeps)
        moments = tuple(_as_read(structure, consumer, grams[consumer]) for consumer in sharing)
        fits.append(Pending(sharing, features.outer, kept, live, moments, ridge))
    return fits, refusals


def corrected(structure: Structure, keeps: Mapping[Atom, NDArray[np.bool_]]) -> list[Consumer]:
    """Return the consumers that lose features, and whose weights can be corrected for it.

    Args:
        structure: of the network before units are removed.
        keeps: for each Atom that loses units, bool [size].

    """
    shares = (consumers for consumers in _losing(structure, keeps, structure.consumers) if _refusal(consumers) is None)
    return [consumer for consumers in shares for consumer in consumers]


def _losing(
    structure: Structure, keeps: Mapping[Atom, NDArray[np.bool_]], consumers: Iterable[Consumer]
) -> Iterator[tuple[Consumer, ...]]:
    """Yield those of the consumers that read the same stored weight, where one at least loses features."""
    for sharing in _sharing(consumers).values():
        if any(_loses(structure, consumer, keeps) for consumer in sharing):
            yield sharing


def _loses(structure: Structure, consumer: Consumer, keeps: Mapping[Atom, NDArray[np.bool_]]) -> bool:
    """Whether features of a consumer go whose outputs stay.

    Those that share a weight may lose different ones, where they contract it along different axes. The groups of a
    grouped Conv that go take their outputs with them: nothing is left to correct.
    """
    live = keep_mask(consumer.blocks, keeps)
    return not bool(features_of(structure, consumer).kept(keeps)[live].all())


def _as_read(structure: Structure, consumer: Consumer, gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the moments of what a consumer reads, from those of its source.

    A recurrent layer reads its states a step later. In the place of the last it reads a first state of zeros, unless it
    is given one: of S positions one counts, but adds nothing.
    """
    node, first = consumer.node, RECURRENT_STATES[0]
    if not consumer.recurrence or (len(node.inputs) > first and not node.inputs[first].is_empty()):
        return gram
    steps = structure.records.axes[consumer.source][1 if node.attrs.get("layout", 0) else 0].size
    read = gram.copy()
    read[:, -1, -1] *= max(steps, 2) / (max(steps, 2) - 1)
    return read


def intercept_is_exact(consumer: Consumer) -> bool:
    """Whether a constant in the input is a constant in the output, wherever the kernel stands (docs/mathematics.md, 4).

    Zero padding breaks that at the borders, and a transposed Conv reaches its outputs with varying numbers of taps, or
    with none between its strides. A GRU that gates its states before R reads them has no place for a constant.

    Args:
        consumer: the linear map.

    """
    if consumer.recurrence and consumer.node.op == "GRU" and not consumer.node.attrs.get("linear_before_reset", 0):
        return False
    if consumer.padded or consumer.kind != "ConvTranspose":
        return not consumer.padded
    kernel = [consumer.weight.constant.shape[axis] for axis in consumer.weight.perm[2:]]
    return all(size == 1 for size in (*kernel, *consumer.node.attrs.get("strides", ())))


def _fit(
    consumers: tuple[Consumer, ...],
    outer: int,
    kept: NDArray[np.bool_],
    grams: NDArray[np.float64],
    *,
    live: NDArray[np.bool_],
    ridge: float,
) -> Fit:
    removed: list[NDArray[np.float64] | None] = []
    intercepts = np.zeros(kept.shape)
    errors = []
    affine = all(intercept_is_exact(consumer) for consumer in consumers)
    if not kept[live].any():
        # Of a branch that goes as a whole the mean is all there is left. Behind zero padding it is off at the borders,
        # but less than nothing would be off everywhere.
        affine = all(consumer.kind == "Conv" or intercept_is_exact(consumer) for consumer in consumers)
    for block, gram in enumerate(grams):
        if not live[block]:
            removed.append(None)
            continue
        result = recover(gram, kept[block], ridge=ridge, affine=affine)
        removed.append(result.removed)
        intercepts[block] = result.intercept
        errors.append(result.error)
    return Fit(consumers, outer, kept, tuple(removed), intercepts, float(np.mean(errors)))


def _sharing(consumers: Iterable[Consumer]) -> dict[str, tuple[Consumer, ...]]:
    """Group consumers by the weight they read."""
    shared: dict[str, tuple[Consumer, ...]] = {}
    for consumer in consumers:
        name = consumer.weight.constant.name
        shared[name] = (*shared.get(name, ()), consumer)
    return shared


def _refusal(consumers: tuple[Consumer, ...]) -> str | None:
    constant = consumers[0].weight.constant
    if sum(1 for _ in _end_uses(constant)) != len(consumers):
        return f"weight '{constant.name}' has other uses as well; it was pruned without recovery"
    if len({(consumer.contracted, consumer.blocks.size) for consumer in consumers}) > 1:
        return f"weight '{constant.name}' is contracted along different axes; it was pruned without recovery"
    return None


def _end_uses(tensor: gs.Tensor) -> Iterator[gs.Node]:
    """Yield the nodes that compute with a constant, looking through those that only hand it on."""
    for node in tensor.outputs:
        if node.op in PASSED_THROUGH:
            yield from _end_uses(node.outputs[0])
        else:
            yield node
