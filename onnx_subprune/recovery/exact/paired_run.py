"""Both networks on their way through the samples: what layers are fitted on, their fits, and where these are written.

At each step the dense and the pruned network advance as far as the layers of the step need. The rows they are fitted
on are summed as they come by, so no more than a batch of them is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np

from onnx_subprune.calibration import ROWS_PER_FEATURE, Dataset, portions
from onnx_subprune.calibration.held_out import Portion
from onnx_subprune.model import array_of, initializer
from onnx_subprune.model.compared_models import known_sizes, sized_otherwise
from onnx_subprune.model.decisions import comparisons_of
from onnx_subprune.recovery.exact.activation_store import Store
from onnx_subprune.recovery.exact.clip_rows import ClipRows
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import Linear
from onnx_subprune.recovery.exact.rows import Rows, Values, rows_of
from onnx_subprune.recovery.exact.sample_size import rows_wanted, samples_needed, spread
from onnx_subprune.recovery.exact.segments import Segments
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.exact.shortcuts import Shortcut
from onnx_subprune.recovery.exact.steps import Step
from onnx_subprune.recovery.exact.targets import Networks, Targets
from onnx_subprune.subspace.clipped_regression import Limits, fit_behind_clip
from onnx_subprune.subspace.residual_ridge import ROUNDING, Refined, refine
from onnx_subprune.subspace.residual_sums import Pairs
from onnx_subprune.threads import ahead

__all__ = ["PairedRun"]

Array = np.ndarray[Any, Any]

# The sums and solutions of one layer take no more memory than this.
_MOST_BYTES = 4 << 30
# What half precision rounds a value to, squared and with some room.
_HALF_ROUNDING = 1e-5
# The rows of one run take no more memory than this, beside their copies.
_RUN_BYTES = 1 << 28
# A channel whose scale is smaller than this share of the largest keeps its weights.
_SMALLEST_SCALE = 1e-6


class PairedRun:
    """Both networks on their way through the samples.

    Args:
        networks: both of them; fits are written into the pruned one.
        surroundings: of the pruned network.
        steps: what will be fitted, in this order.
        data: calibration samples.
        settings: how layers are fitted.

    """

    def __init__(
        self,
        networks: Networks,
        surroundings: Surroundings,
        steps: Sequence[Step],
        data: Dataset,
        settings: Settings,
    ) -> None:
        self._stores = (Store(settings.max_bytes), Store(settings.max_bytes))
        self._dense, self._pruned = _side_by_side(networks, self._stores, settings)
        self._restrict = networks.restrict
        self._targets = Targets(networks.dense, networks.restrict, surroundings)
        self._scratch = networks.scratch
        self._settings = settings
        self._surroundings = surroundings
        self._tensors = {tensor.name: tensor for tensor in networks.pruned.graph.initializer}
        linears = [linear for step in steps for linear in step.linears]
        self._open = {id(linear.node) for linear in linears}
        for step in steps:
            self._dense.expect(set(self._wanted_tensors(step)))
        self._portions: list[Portion] = []
        layers = [(self._targets.tensor(linear), linear) for linear in linears]
        wanted = samples_needed(networks, layers, data, settings)
        for portion in spread(portions(data, settings.batch_size, settings.held), wanted, data.samples):
            for version in networks.versions:
                for network in (self._dense, self._pruned):
                    network.feed({**portion.feeds, **version})
                self._portions.append(replace(portion, feeds={}))
        self._samples = sum(portion.samples for portion in self._portions)
        self._together = max((portion.samples for portion in self._portions), default=1)
        self._units = sum(portion.units for portion in self._portions)

    def __enter__(self) -> PairedRun:
        return self

    def __exit__(self, *_: object) -> None:
        for store in self._stores:
            store.close()

    def fit(self, step: Step, rng: np.random.Generator) -> list[Refined] | str:
        """Advance to layers that are fitted at once and fit them.

        Args:
            step: the layers.
            rng: draws positions.

        Returns:
            A fit for each layer; or a text that says why they cannot be fitted.

        """
        shortcut = None if step.shared else self._shortcut(step.linears[0])
        self._open -= {id(linear.node) for linear in step.linears}
        weight = step.matrices(self._tensors)
        reason = self._refusal(step, shortcut, weight.shape)
        if reason is not None:
            return reason
        bias = step.intercepts(self._tensors)
        scale = np.ones(weight.shape[:2])
        if shortcut is not None and shortcut.scale is not None:
            scale = shortcut.scale.reshape(scale.shape)
        limits = self._limits(step, shortcut)
        clip_rows = None
        if limits is not None:
            clip_rows = ClipRows(self._settings, weight.shape[2], self._samples, len(step.readers))
        sums = self._summed(step, shortcut, (weight * scale[:, :, None], bias * scale), clip_rows, rng)
        if isinstance(sums, str):
            return sums
        rounding = _HALF_ROUNDING if step.stored_bytes(self._tensors) == 2 else ROUNDING
        refined = _refined(step, sums, rounding)
        if (scale != 1).any():
            return [_unscaled(layer, scale, weight, bias) for layer in refined]
        if limits is not None and clip_rows is not None and clip_rows.enough:
            refined = [fit_behind_clip(refined[0], sums, *clip_rows.joined(), limits, rounding=rounding)]
        return _for_each_reader(step, refined[0]) if step.shared else refined

    def _limits(self, step: Step, shortcut: Shortcut | None) -> Limits | None:
        """Return what a clip leaves of all that the layers of a step give; None where no fit goes by it."""
        alone = step.shared or len(step.linears) == 1
        if not alone or not step.affine or step.biases > 1:
            return None
        limits = {self._surroundings.limits(linear, shortcut) for linear in step.linears}
        return limits.pop() if len(limits) == 1 else None

    def _refusal(self, step: Step, shortcut: Shortcut | None, shape: tuple[int, ...]) -> str | None:
        _, outputs, features = shape
        if features > self._settings.max_features:
            return f"it reads {features} features at once, more than the {self._settings.max_features} allowed"
        if _bytes_of(shape) > _MOST_BYTES:
            return f"its {outputs} outputs of {features} features are more than memory is given for"
        if step.beside and not all(map(self._dense.has, map(self._surroundings.counterpart, step.sources))):
            return "the dense network has no tensor that it reads"
        known = (None, None if shortcut is None else shortcut.total)
        if any(self._surroundings.shifted(linear) not in known for linear in step.linears):
            return "it gives what a branch gave that is gone, to a sum that is not known yet"
        return None

    def _summed(
        self,
        step: Step,
        shortcut: Shortcut | None,
        present: tuple[Array, Array],
        clip_rows: ClipRows | None,
        rng: np.random.Generator,
    ) -> tuple[Pairs, Pairs] | str:
        """Return the sums over the samples to fit on, and over those held out; or a text that names a fault."""
        weight, bias = present
        sums: tuple[Pairs, Pairs] | None = None
        seen = 0
        reason = None
        runs = ahead(self._rows(step, shortcut, weight.shape[2], rng, summed=clip_rows is not None))
        for rows, portion in zip(runs, self._portions, strict=True):
            if isinstance(rows, str) or reason is not None:
                reason = reason or str(rows)
                continue
            if sums is None and any(read.x.shape[1] for read in rows):
                pivot = _pivot(rows, bias) if step.affine else None
                first, second = (Pairs(weight, bias, len(rows[0].parts), pivot) for _ in range(2))
                sums = first, second
            for reader, read in enumerate(rows):
                if sums is None or not read.x.shape[1]:
                    continue
                for number, part in self._split(read, seen, portion):
                    sums[number].add(part.x, part.parts, part.weights, reader if step.biases > 1 else 0)
                    if clip_rows is not None:
                        clip_rows.add(number, part, portion.samples)
            seen += portion.units
        if reason is not None or sums is None or not sums[0].count:
            return reason or "no sample reaches it"
        if not all(pairs.finite for pairs in sums):
            return "what it reads or gives is not finite"
        if not self._settings.held:
            return sums[0], sums[0]
        return sums if sums[1].count else "there are too few samples to hold some out"

    def write(self, step: Step, refined: Sequence[Refined]) -> list[Linear]:
        """Put fitted weights and biases into the pruned network; returns the layers whose type cannot hold them."""
        refused: list[Linear] = []
        written: set[str] = set()
        for linear, layer in zip(step.linears, refined, strict=True):
            if np.isinf(layer.strength) or linear.weight in written:
                continue
            weight = self._tensors[linear.weight]
            like = array_of(weight)
            with np.errstate(over="ignore"):
                values = linear.stored(layer.weight, like).astype(like.dtype)
            if not np.isfinite(values).all():
                # Half precision cannot hold it.
                refused.append(linear)
                continue
            weight.CopyFrom(initializer(values, weight.name, self._scratch))
            written.add(linear.weight)
        for linear, layer in zip(step.linears, refined, strict=True):
            if linear.bias is not None and linear.weight in written:
                bias = self._tensors[linear.bias]
                bias.CopyFrom(initializer(linear.stored_bias(layer.bias, array_of(bias)), bias.name))
        weights = {linear.weight for linear in refused}
        return [linear for linear in step.linears if linear.weight in weights]

    def _shortcut(self, linear: Linear) -> Shortcut | None:
        """Return what the layer's output is added to, where both networks can compute it by now."""
        shortcut = self._surroundings.shortcut(linear) if self._settings.sequential else None
        if shortcut is None:
            return None
        if not (self._dense.has(self._surroundings.counterpart(shortcut.name)) and self._pruned.has(shortcut.name)):
            return None
        return None if any(id(node) in self._open for node in self._pruned.pending([shortcut.name])) else shortcut

    def _rows(
        self, step: Step, shortcut: Shortcut | None, features: int, rng: np.random.Generator, *, summed: bool
    ) -> Iterable[list[Rows] | str]:
        """Yield what layers are fitted on, batch by batch: the rows of each reader."""
        readers = step.readers
        shapes = [linears[0].view(array_of(self._tensors[linears[0].weight])).shape for linears in readers]
        most = max(1, -(-rows_wanted(features, self._settings, clipped=summed) // max(self._samples, 1)))
        run_bytes = _RUN_BYTES // len(readers)
        most = min(most, max(1, run_bytes // (4 * features * step.linears[0].blocks * self._together)))
        for (dense, pruned), portion in zip(ahead(self._sides(step, shortcut)), self._portions, strict=True):
            rows: list[Rows] = []
            reason: str | None = None
            targets = [[self._targets.value(dense, linear) for linear in linears] for linears in readers]
            normalised = all(
                self._surroundings.normalised(linears[0], shortcut, y[0].ndim)
                for linears, y in zip(readers, targets, strict=True)
            )
            for linears, shape, y in zip(readers, shapes, targets, strict=True):
                values = Values(pruned[linears[0].source], y, samples=portion.samples)
                if shortcut is not None:
                    beside = self._targets.shortcut(dense, shortcut)
                    values = replace(values, dense_shortcut=beside, pruned_shortcut=pruned[shortcut.name])
                read = rows_of(linears, values, shortcut, shape, most, normalised=normalised, rng=rng, summed=summed)
                if isinstance(read, str):
                    reason = reason or read
                else:
                    rows.append(read)
            yield reason or rows

    def _wanted_tensors(self, step: Step) -> list[str]:
        """Return the dense tensors that a step is fitted to, and those that it reads beside the pruned network."""
        beside = step.sources if step.beside else ()
        targets = (self._targets.tensor(linear) for linear in step.linears)
        return [*targets, *(self._surroundings.counterpart(source) for source in beside)]

    def _sides(
        self, step: Step, shortcut: Shortcut | None
    ) -> Iterable[tuple[Mapping[str, Array], Mapping[str, Array]]]:
        """Yield the values of the dense and of the pruned network, batch by batch."""
        counterpart = self._surroundings.counterpart
        wanted = self._wanted_tensors(step)
        if step.beside:
            for values in self._dense.advance(wanted):
                yield values, {source: self._targets.plain(values, source) for source in step.sources}
            return
        beside = [] if shortcut is None else [shortcut.name]
        wanted += [counterpart(name) for name in beside]
        if shortcut is not None and counterpart(shortcut.total) != shortcut.total:
            wanted += [shortcut.total, counterpart(shortcut.total)]
        read = [*step.sources, *beside]
        self._hand_over_decisions(read)
        yield from zip(self._dense.advance(wanted), self._pruned.advance(read), strict=True)

    def _hand_over_decisions(self, read: Sequence[str]) -> None:
        """Give the pruned network the decisions of the dense one that tensors depend on, all batches of them."""
        while self._portions and (names := self._pruned.lacking(read)):
            for batch, values in enumerate(self._dense.advance(names)):
                self._pruned.give(values, batch, self._restrict)

    def _split(self, rows: Rows, seen: int, portion: Portion) -> Iterator[tuple[int, Rows]]:
        """Yield the rows to fit on (0) and those held out (1), where there are any."""
        for number, mask in enumerate(self._masks(rows, seen, portion)):
            if mask.any():
                yield number, rows if mask.all() else rows.chosen(mask)

    def _masks(self, rows: Rows, seen: int, portion: Portion) -> tuple[Array, Array]:
        """Return which rows to fit on and which are held out; of too few samples to hold any out, parts are."""
        held, count = self._settings.held, len(rows.places)
        if not held or self._units >= held:
            return np.full(count, not portion.held), np.full(count, portion.held)
        pieces = -(-held // max(self._units, 1))
        number = seen * pieces + np.floor(rows.places * portion.units * pieces).astype(np.int64)
        away = number % held == held - 1
        return ~away, away


def _side_by_side(networks: Networks, stores: tuple[Store, Store], settings: Settings) -> tuple[Segments, Segments]:
    """Return both networks before their first node; the pruned one will be given what the dense one decides.

    What it has of another size, it decides on its own.
    """
    decided = [decision.tensor for decision in comparisons_of(networks.dense).decisions]
    own = sized_otherwise(known_sizes(networks.dense, decided), networks.pruned)
    decisions = [name for name in decided if name not in own]
    dense, pruned = (
        Segments(model, store, providers=settings.providers, threads=settings.threads, given=given)
        for model, store, given in zip((networks.dense, networks.pruned), stores, ((), decisions), strict=True)
    )
    dense.expect(decisions)
    return dense, pruned


def _refined(step: Step, sums: tuple[Pairs, Pairs], rounding: float) -> list[Refined]:
    """Return the fits of a step's weights."""
    fitted, held = sums
    return refine(
        fitted,
        held,
        affine=step.affine,
        bounds=None if step.shared else _bounds(step),
        rounding=rounding,
        whole=fitted.count + held.count >= ROWS_PER_FEATURE * fitted.features,
    )


def _bounds(step: Step) -> list[int]:
    """Return where the outputs of each layer begin, and where the last end."""
    return list(accumulate((linear.outputs // linear.blocks for linear in step.linears), initial=0))


def _pivot(rows: Sequence[Rows], bias: Array) -> Array:
    """Return means of the inputs: of each reader that has a bias of its own, else of the first that reads any."""
    if bias.ndim == 2:
        return _mean(next(read for read in rows if read.x.shape[1]))
    return np.stack([_mean(read) for read in rows])


def _mean(rows: Rows) -> Array:
    blocks, count, features = rows.x.shape
    return rows.x.mean(axis=1, dtype=np.float64) if count else np.zeros((blocks, features))


def _for_each_reader(step: Step, refined: Refined) -> list[Refined]:
    """Return a fit of a weight for each of its readers, with the bias of that reader."""
    biases = refined.bias if refined.bias.ndim == 3 else [refined.bias] * len(step.linears)
    return [replace(refined, bias=bias) for bias in biases]


def _bytes_of(shape: tuple[int, ...]) -> int:
    """Return what a layer takes: Gram matrices of two sets of rows, their sum and its factor, with copies."""
    blocks, outputs, features = shape
    return 8 * blocks * features * (6 * features + 8 * outputs)


def _unscaled(fit: Refined, scale: Array, weight: Array, bias: Array) -> Refined:
    """Return a layer that was fitted behind a scale of its channels as it is in front of it."""
    if np.isinf(fit.strength):
        return replace(fit, weight=weight, bias=bias)
    clear = np.abs(scale) > _SMALLEST_SCALE * np.abs(scale).max()
    safe = np.where(clear, scale, 1.0)
    return replace(
        fit,
        weight=np.where(clear[:, :, None], fit.weight / safe[:, :, None], weight),
        bias=np.where(clear, fit.bias / safe, bias),
    )
