"""Both networks on their way through the samples: what layers are fitted on, their fits, and where these are written.

At each step the dense and the pruned network advance as far as the layers of the step need. The rows they are fitted
on are summed as they come by, so no more than a batch of them is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from onnx_subprune.calibration import ROWS_PER_FEATURE, Dataset, portions
from onnx_subprune.calibration.held_out import Portion
from onnx_subprune.model import Scratch, array_of, initializer
from onnx_subprune.recovery.exact.activation_store import Store
from onnx_subprune.recovery.exact.clip_rows import ClipRows
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import Linear
from onnx_subprune.recovery.exact.rows import Rows, Values, rows_of
from onnx_subprune.recovery.exact.sample_size import enough, rows_wanted, spread
from onnx_subprune.recovery.exact.segments import Segments
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.exact.shortcuts import Shortcut
from onnx_subprune.subspace.clipped_regression import clipped
from onnx_subprune.subspace.residual_ridge import ROUNDING, Refined, refine
from onnx_subprune.subspace.residual_sums import Pairs
from onnx_subprune.threads import ahead

__all__ = ["Networks", "PairedRun", "Restrict"]

Array = np.ndarray[Any, Any]
Restrict = Callable[[str, Array], Array]

# The sums and solutions of one layer take no more memory than this.
_MOST_BYTES = 4 << 30
# What half precision rounds a value to, squared and with some room.
_HALF_ROUNDING = 1e-5
# The rows of one run take no more memory than this, beside their copies.
_RUN_BYTES = 1 << 28
# A channel whose scale is smaller than this share of the largest keeps its weights.
_SMALLEST_SCALE = 1e-6


@dataclass(frozen=True, eq=False)
class Networks:
    """A pruned network and the one that it was.

    Attributes:
        dense: the network that was pruned; tensors that both networks have bear the same name.
        pruned: what became of it.
        restrict: cuts the value of a dense tensor down to the units that stay, on every axis.
        scratch: where large new weights go.
        sample_shapes: of tensors of the dense network for the first sample, kept from one pruned network to the next.

    """

    dense: onnx.ModelProto
    pruned: onnx.ModelProto
    restrict: Restrict
    scratch: Scratch | None = None
    sample_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


class PairedRun:
    """Both networks on their way through the samples."""

    def __init__(
        self,
        networks: Networks,
        surroundings: Surroundings,
        steps: Sequence[Linear],
        data: Dataset,
        settings: Settings,
    ) -> None:
        self._stores = (Store(settings.max_bytes), Store(settings.max_bytes))
        self._dense, self._pruned = (
            Segments(model, store, providers=settings.providers, threads=settings.threads)
            for model, store in zip((networks.dense, networks.pruned), self._stores, strict=True)
        )
        self._restrict = networks.restrict
        self._scratch = networks.scratch
        self._settings = settings
        self._surroundings = surroundings
        self._tensors = {tensor.name: tensor for tensor in networks.pruned.graph.initializer}
        self._open = {id(one.node) for one in steps}
        self._dense.expect(self._meaning(one.output) for one in steps)
        if not settings.sequential:
            self._dense.expect({self._meaning(one.source) for one in steps})
        self._portions: list[Portion] = []
        layers = [(self._meaning(one.output), one) for one in steps]
        wanted = enough(networks.dense, networks.pruned, layers, data, settings, sample_shapes=networks.sample_shapes)
        for portion in spread(portions(data, settings.batch_size, settings.held), wanted, data.samples):
            for network in (self._dense, self._pruned):
                network.feed(portion.feeds)
            self._portions.append(replace(portion, feeds={}))
        self._samples = sum(one.samples for one in self._portions)
        self._together = max((one.samples for one in self._portions), default=1)
        self._units = sum(one.units for one in self._portions)

    def __enter__(self) -> PairedRun:
        return self

    def __exit__(self, *_: object) -> None:
        for store in self._stores:
            store.close()

    def fit(self, linears: Sequence[Linear], rng: np.random.Generator) -> list[Refined] | str:
        """Advance to layers that read the same and fit them. A text says why they cannot be."""
        weight = np.concatenate([one.matrices(array_of(self._tensors[one.weight])) for one in linears], axis=1)
        shortcut = self._shortcut(linears[0])
        self._open -= {id(one.node) for one in linears}
        reason = self._refusal(linears[0], shortcut, weight.shape)
        if reason is not None:
            return reason
        scale = np.ones(weight.shape[:2])
        if shortcut is not None and shortcut.scale is not None:
            scale = shortcut.scale.reshape(scale.shape)
        bias = np.concatenate([self._bias(one) for one in linears], axis=1)
        limits = self._surroundings.limits(linears[0], shortcut) if len(linears) == 1 and linears[0].bias else None
        examples = None if limits is None else ClipRows(self._settings, weight.shape[2], self._samples)
        sums = self._summed(linears, shortcut, (weight * scale[:, :, None], bias * scale), examples, rng)
        if isinstance(sums, str):
            return sums
        fitted, held = sums
        half = array_of(self._tensors[linears[0].weight]).dtype.itemsize == 2
        found = refine(
            fitted,
            held,
            affine=linears[0].bias is not None,
            bounds=np.cumsum([0, *(one.outputs // one.blocks for one in linears)]).tolist(),
            rounding=_HALF_ROUNDING if half else ROUNDING,
            whole=fitted.count + held.count >= ROWS_PER_FEATURE * weight.shape[2],
        )
        if (scale != 1).any():
            return [_unscaled(one, scale, weight, bias) for one in found]
        if limits is None or examples is None or not examples.enough:
            return found
        rounding = _HALF_ROUNDING if half else ROUNDING
        return [clipped(found[0], (weight, bias), *examples.joined(), limits, rounding=rounding)]

    def _refusal(self, linear: Linear, shortcut: Shortcut | None, shape: tuple[int, ...]) -> str | None:
        _, outputs, features = shape
        if features > self._settings.max_features:
            return f"it reads {features} features at once, more than the {self._settings.max_features} allowed"
        if _bytes_of(shape) > _MOST_BYTES:
            return f"its {outputs} outputs of {features} features are more than memory is given for"
        if self._surroundings.shifted(linear) not in (None, None if shortcut is None else shortcut.total):
            return "it gives what a branch gave that is gone, to a sum that is not known yet"
        return None

    def _summed(
        self,
        linears: Sequence[Linear],
        shortcut: Shortcut | None,
        present: tuple[Array, Array],
        examples: ClipRows | None,
        rng: np.random.Generator,
    ) -> tuple[Pairs, Pairs] | str:
        """Return the sums over the samples to fit on, and over those held out; a text says what is wrong."""
        weight, bias = present
        sums: tuple[Pairs, Pairs] | None = None
        seen = 0
        reason = None
        for rows, portion in zip(
            ahead(self._rows(linears, shortcut, weight.shape[2], rng, summed=examples is not None)),
            self._portions,
            strict=True,
        ):
            if isinstance(rows, str) or reason is not None:
                reason = reason or str(rows)
                continue
            if sums is None and rows.x.shape[1]:
                pivot = rows.x.mean(axis=1, dtype=np.float64) if linears[0].bias is not None else None
                first, second = (Pairs(weight, bias, len(rows.parts), pivot) for _ in range(2))
                sums = first, second
            if sums is not None and rows.x.shape[1]:
                self._add(sums, examples, rows, seen, portion)
            seen += portion.units
        if reason is not None or sums is None or not sums[0].count:
            return reason or "no sample reaches it"
        if not all(pairs.finite for pairs in sums):
            return "what it reads or gives is not finite"
        if not self._settings.held:
            return sums[0], sums[0]
        return sums if sums[1].count else "there are too few samples to hold some out"

    def write(self, linear: Linear, found: Refined) -> bool:
        """Put the fitted weight and bias into the pruned network; whether it holds them now."""
        if np.isinf(found.strength):
            return True
        weight = self._tensors[linear.weight]
        like = array_of(weight)
        with np.errstate(over="ignore"):
            values = linear.stored(found.weight, like).astype(like.dtype)
        if not np.isfinite(values).all():
            # Half precision cannot hold it.
            return False
        weight.CopyFrom(initializer(values, weight.name, self._scratch))
        if linear.bias is not None:
            bias = self._tensors[linear.bias]
            old = array_of(bias)
            bias.CopyFrom(initializer((found.bias / linear.scale).reshape(old.shape).astype(old.dtype), bias.name))
        return True

    def _bias(self, linear: Linear) -> Array:
        shape = (linear.blocks, linear.outputs // linear.blocks)
        if linear.bias is None:
            return np.zeros(shape)
        return linear.scale * array_of(self._tensors[linear.bias]).astype(np.float64).reshape(shape)

    def _meaning(self, name: str) -> str:
        return self._surroundings.meaning(name)

    def _shortcut(self, linear: Linear) -> Shortcut | None:
        """Return what the layer's output is added to, where both networks can compute it by now."""
        found = self._surroundings.shortcut(linear) if self._settings.sequential else None
        if found is None or not (self._dense.has(self._meaning(found.name)) and self._pruned.has(found.name)):
            return None
        return None if any(id(node) in self._open for node in self._pruned.pending([found.name])) else found

    def _rows(
        self,
        linears: Sequence[Linear],
        shortcut: Shortcut | None,
        features: int,
        rng: np.random.Generator,
        *,
        summed: bool,
    ) -> Iterable[Rows | str]:
        """Yield what layers are fitted on, batch by batch."""
        shape = linears[0].view(array_of(self._tensors[linears[0].weight])).shape
        most = max(1, -(-rows_wanted(features, self._settings) // max(self._samples, 1)))
        most = min(most, max(1, _RUN_BYTES // (4 * features * linears[0].blocks * self._together)))
        for (dense, pruned), portion in zip(ahead(self._sides(linears, shortcut)), self._portions, strict=True):
            y = [self._dense_value(dense, one.output) for one in linears]
            values = Values(pruned[linears[0].source], y, samples=portion.samples)
            if shortcut is not None:
                values = replace(values, theirs=self._theirs(dense, shortcut), ours=pruned[shortcut.name])
            normalised = self._surroundings.normalised(linears[0], shortcut, y[0].ndim)
            yield rows_of(linears, values, shortcut, shape, most, normalised=normalised, rng=rng, summed=summed)

    def _dense_value(self, values: Mapping[str, Array], name: str) -> Array:
        """Return the dense tensor that a tensor of the pruned network stands for, cut down to the units that stay."""
        meaning = self._meaning(name)
        return self._restrict(meaning, values[meaning])

    def _theirs(self, values: Mapping[str, Array], shortcut: Shortcut) -> Array:
        """Return what the layer is added to in the dense network, with the branches that went since."""
        theirs = self._dense_value(values, shortcut.name)
        if self._meaning(shortcut.total) == shortcut.total:
            return theirs
        own = self._restrict(shortcut.total, values[shortcut.total])
        return np.asarray(theirs + (self._dense_value(values, shortcut.total) - own))

    def _sides(
        self, linears: Sequence[Linear], shortcut: Shortcut | None
    ) -> Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]:
        source = linears[0].source
        wanted = [self._meaning(one.output) for one in linears]
        if not self._settings.sequential:
            for values in self._dense.advance([*wanted, self._meaning(source)]):
                yield values, {source: self._dense_value(values, source)}
            return
        beside = [] if shortcut is None else [shortcut.name]
        wanted += [self._meaning(name) for name in beside]
        if shortcut is not None and self._meaning(shortcut.total) != shortcut.total:
            wanted += [shortcut.total, self._meaning(shortcut.total)]
        yield from zip(self._dense.advance(wanted), self._pruned.advance([source, *beside]), strict=True)

    def _add(
        self, sums: tuple[Pairs, Pairs], examples: ClipRows | None, rows: Rows, seen: int, portion: Portion
    ) -> None:
        """Add a run to the sums of the samples to fit on, or to those of the samples held out."""
        for number, mask in enumerate(self._split(rows, seen, portion)):
            if mask.any():
                part = rows.chosen(mask)
                sums[number].add(part.x, part.parts, part.weights)
                if examples is not None:
                    examples.add(number, part, portion.samples)

    def _split(self, rows: Rows, seen: int, portion: Portion) -> tuple[Array, Array]:
        """Return the rows to fit on and those held out; of too few samples to hold any out, parts are."""
        held, count = self._settings.held, len(rows.places)
        if not held or self._units >= held:
            return np.full(count, not portion.held), np.full(count, portion.held)
        pieces = -(-held // max(self._units, 1))
        number = seen * pieces + np.floor(rows.places * portion.units * pieces).astype(np.int64)
        away = number % held == held - 1
        return ~away, away


def _bytes_of(shape: tuple[int, ...]) -> int:
    """Return what a layer takes: Gram matrices of two sets of rows, their sum and its factor, with copies."""
    blocks, outputs, features = shape
    return 8 * blocks * features * (6 * features + 8 * outputs)


def _unscaled(found: Refined, scale: Array, weight: Array, bias: Array) -> Refined:
    """Return a layer that was fitted behind a scale of its channels as it is in front of it."""
    if np.isinf(found.strength):
        return replace(found, weight=weight, bias=bias)
    clear = np.abs(scale) > _SMALLEST_SCALE * np.abs(scale).max()
    safe = np.where(clear, scale, 1.0)
    return replace(
        found,
        weight=np.where(clear[:, :, None], found.weight / safe[:, :, None], weight),
        bias=np.where(clear, found.bias / safe, bias),
    )
