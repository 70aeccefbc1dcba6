"""Sequential, asymmetric recovery: layer after layer, the pruned network is fitted to what the dense one computes.

Both networks run side by side, segment by segment. At each linear layer the inputs are those of the pruned network
with all earlier layers fitted already; the target is the dense layer's output, plus the drift of the shortcut it is
added to. So every layer also repairs what pruning before it broke, whether it lost inputs itself or not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from onnx_subprune.calibration import Dataset, Progress
from onnx_subprune.model import Scratch, array_of, initializer
from onnx_subprune.refit.drift import Shortcut
from onnx_subprune.refit.linear import Linear, find_linears, with_biases, without_idle_biases
from onnx_subprune.refit.segments import Segments
from onnx_subprune.refit.store import DEFAULT_MAX_BYTES, Store
from onnx_subprune.refit.targets import Rows, Surroundings, Values, rows_of
from onnx_subprune.subspace.pairs import Pairs, Refined, refine

__all__ = ["LayerFit", "Refit", "Settings", "refit"]

logger = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]
Restrict = Callable[[str, Array], Array]


@dataclass(frozen=True)
class Settings:
    """How layers are fitted.

    Attributes:
        sequential: whether a layer reads what the pruned network gives it, as fitted so far, or the dense one.
        held: one sample in so many is held out to choose how far each fit is trusted; 0 for none.
        rows: rows to fit a layer on, at most, for each feature.
        max_features: layers that read more features at once keep the weights they have.
        max_bytes: of activations between segments in memory, for each of the two networks.
        batch_size: samples per run.
        seed: of the positions that are sampled.
        providers: execution providers, most wanted first.
        threads: intra-op threads of the runtime.

    """

    sequential: bool = True
    held: int = 5
    rows: int = 32
    max_features: int = 8192
    max_bytes: int = DEFAULT_MAX_BYTES
    batch_size: int = 32
    seed: int = 0
    providers: Sequence[str] = ("cpu",)
    threads: int | None = None


@dataclass(frozen=True)
class LayerFit:
    """What came of one layer.

    Attributes:
        name: of the node.
        before, after: share of its target that is missed on the samples held out, before and after.
        strength: of the ridge; infinite where the layer stayed as it was.
        factors: how far its own error, and the drift of its shortcut, are corrected.

    """

    name: str
    before: float
    after: float
    strength: float
    factors: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Refit:
    """The fitted network, what came of each layer, and why layers were left as they were, by name."""

    model: onnx.ModelProto
    layers: tuple[LayerFit, ...]
    left: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Networks:
    """A pruned network and the one that it was.

    Attributes:
        dense: the network that was pruned; tensors that both networks have bear the same name.
        pruned: what became of it.
        restrict: cuts the value of a dense tensor down to the units that stay, on every axis.
        scratch: where large new weights go.

    """

    dense: onnx.ModelProto
    pruned: onnx.ModelProto
    restrict: Restrict
    scratch: Scratch | None = None


def refit(
    networks: Networks, data: Dataset, settings: Settings | None = None, progress: Progress | None = None
) -> Refit:
    """Fit all linear layers of a pruned network, which is not changed, to the dense one, in graph order.

    Args:
        networks: both of them.
        data: calibration samples.
        settings: see there.
        progress: called with the layers done and their number.

    Raises:
        ModelError: a segment does not run.
        OutputError: there is no room for the activations.

    """
    settings = settings or Settings()
    model, added = with_biases(networks.pruned)
    linears, left = find_linears(model)
    known = {name for node in networks.dense.graph.node for name in node.output}
    left |= {one.name: "the dense network has no such tensor" for one in linears if one.output not in known}
    steps = [one for one in linears if one.output in known]
    layers = []
    with _Run(replace(networks, pruned=model), data, settings) as work:
        for index, linear in enumerate(steps):
            if progress is not None:
                progress(index, len(steps))
            found = work.fit(linear, steps[index:], np.random.default_rng((settings.seed, index)))
            if isinstance(found, str):
                left[linear.name] = found
                continue
            work.write(linear, found)
            layers.append(LayerFit(linear.name, found.before, found.after, found.strength, found.factors))
            logger.debug("fitted %s", layers[-1])
    return Refit(without_idle_biases(model, added), tuple(layers), left)


class _Run:
    """Both networks on their way through the samples."""

    def __init__(self, networks: Networks, data: Dataset, settings: Settings) -> None:
        self._stores = (Store(settings.max_bytes), Store(settings.max_bytes))
        self._dense, self._pruned = (
            Segments(model, store, providers=settings.providers, threads=settings.threads)
            for model, store in zip((networks.dense, networks.pruned), self._stores, strict=True)
        )
        self._restrict = networks.restrict
        self._scratch = networks.scratch
        self._settings = settings
        self._surroundings = Surroundings(networks.pruned)
        self._tensors = {tensor.name: tensor for tensor in networks.pruned.graph.initializer}
        self._counts: list[int] = []
        for feeds in data.batches(settings.batch_size):
            self._counts.append(data.samples_in(feeds))
            for network in (self._dense, self._pruned):
                network.feed(feeds)

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        for store in self._stores:
            store.close()

    def fit(self, linear: Linear, waiting: Sequence[Linear], rng: np.random.Generator) -> Refined | str:
        """Advance to a layer and fit it; `waiting` are the layers from this one on. A text says why it cannot be."""
        weight = linear.matrices(array_of(self._tensors[linear.weight]))
        if weight.shape[2] > self._settings.max_features:
            return f"it reads {weight.shape[2]} features at once, more than the {self._settings.max_features} allowed"
        shortcut = self._shortcut(linear, waiting)
        sums: tuple[Pairs, Pairs] | None = None
        seen = 0
        reason = None
        for rows, count in zip(self._rows(linear, shortcut, weight.shape[2], rng), self._counts, strict=True):
            if isinstance(rows, str) or reason is not None:
                reason = reason or str(rows)
                continue
            if sums is None:
                shape = (*weight.shape, len(rows.parts))
                sums = (Pairs(*shape), Pairs(*shape))
            self._add(sums, rows, seen, count)
            seen += count
        if reason is not None or sums is None:
            return reason or "there are no samples"
        fitted, held = sums
        affine = linear.bias is not None
        return refine(fitted, held if held.count else fitted, weight, self._bias(linear, weight), affine=affine)

    def write(self, linear: Linear, found: Refined) -> None:
        """Put the fitted weight and bias into the pruned network."""
        if np.isinf(found.strength):
            return
        weight = self._tensors[linear.weight]
        like = array_of(weight)
        weight.CopyFrom(initializer(linear.stored(found.weight, like).astype(like.dtype), weight.name, self._scratch))
        if linear.bias is not None:
            bias = self._tensors[linear.bias]
            old = array_of(bias)
            bias.CopyFrom(initializer(found.bias.reshape(old.shape).astype(old.dtype), bias.name))

    def _bias(self, linear: Linear, weight: Array) -> Array:
        if linear.bias is None:
            return np.zeros(weight.shape[:2])
        return array_of(self._tensors[linear.bias]).astype(np.float64).reshape(weight.shape[:2])

    def _shortcut(self, linear: Linear, waiting: Sequence[Linear]) -> Shortcut | None:
        """Return what the layer's output is added to, where both networks can compute it by now."""
        found = self._surroundings.shortcut(linear) if self._settings.sequential else None
        if found is None or not (self._dense.has(found.name) and self._pruned.has(found.name)):
            return None
        open_nodes = {id(one.node) for one in waiting}
        return None if any(id(node) in open_nodes for node in self._pruned.pending([found.name])) else found

    def _rows(
        self, linear: Linear, shortcut: Shortcut | None, features: int, rng: np.random.Generator
    ) -> Iterable[Rows | str]:
        """Yield what the layer is fitted on, batch by batch."""
        beside = [] if shortcut is None else [shortcut.name]
        shape = tuple(self._tensors[linear.weight].dims)
        normalised = self._surroundings.normalised(linear, shortcut)
        # A width of a few channels has few features, but its fit decides over as many positions.
        most = max(1, -(-self._settings.rows * max(features, 64) // max(sum(self._counts), 1)))
        for dense, pruned in self._sides(linear, beside):
            y = self._restrict(linear.output, dense[linear.output])
            values = Values(pruned[linear.source], y)
            if shortcut is not None:
                theirs = self._restrict(shortcut.name, dense[shortcut.name])
                values = Values(pruned[linear.source], y, theirs, pruned[shortcut.name])
            yield rows_of(linear, values, shortcut, shape, most, normalised=normalised, rng=rng)

    def _sides(self, linear: Linear, beside: list[str]) -> Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]:
        if self._settings.sequential:
            theirs, ours = self._dense.advance([linear.output, *beside]), self._pruned.advance([linear.source, *beside])
            yield from zip(theirs, ours, strict=True)
        else:
            source = linear.source
            for values in self._dense.advance([linear.output, source]):
                yield values, {source: self._restrict(source, values[source])}

    def _add(self, sums: tuple[Pairs, Pairs], rows: Rows, seen: int, samples: int) -> None:
        """Add a batch to the sums of the samples to fit on and of those held out."""
        count = rows.x.shape[1]
        number = seen + (np.arange(count) * samples) // max(count, 1)
        away = number % self._settings.held == self._settings.held - 1 if self._settings.held else np.zeros(count, bool)
        for pairs, mask in zip(sums, (~away, away), strict=True):
            if mask.any():
                part = rows.chosen(mask)
                pairs.add(part.x, part.parts, part.weights)
