"""Which layers are fitted at once, and in which order.

Layers that read the same rows are fitted at once, each with a weight of its own. Layers that share a weight are fitted
at once too: one weight, over the rows of all of them. A step comes as soon as all layers before it are fitted, so the
pruned network has run as far as what the step reads, and no further. Where a weight is read again by what it gives (a
block that is applied over and over), no order will do: such a step reads what the dense network gives instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from onnx_subprune.model import array_of
from onnx_subprune.model.pieces import reads
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import Linear, intercept_of
from onnx_subprune.recovery.exact.settings import Settings

__all__ = ["Step", "steps_of"]

Array = np.ndarray[Any, Any]
Stored = dict[str, onnx.TensorProto]


@dataclass(frozen=True, eq=False)
class Step:
    """Layers that are fitted at once.

    Attributes:
        linears: the layers, in graph order.
        shared: whether they have one weight; else they read the same rows.
        beside: whether they read what the dense network gives, cut down, not what the pruned one does.

    """

    linears: tuple[Linear, ...]
    shared: bool = False
    beside: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The tensors that are read."""
        return tuple(dict.fromkeys(linear.source for linear in self.linears))

    @property
    def readers(self) -> tuple[tuple[Linear, ...], ...]:
        """The layers, those in one tuple whose rows are the same."""
        return tuple((linear,) for linear in self.linears) if self.shared else (self.linears,)

    @property
    def biases(self) -> int:
        """How many biases the weight goes with: one, or one for each reader."""
        return len({linear.bias for linear in self.linears}) if self.shared else 1

    @property
    def affine(self) -> bool:
        """Whether biases may change: those that are there are fitted all, or none is."""
        return all(linear.bias is not None for linear in self.linears)

    def stored_bytes(self, stored: Stored) -> int:
        """Return how many bytes an entry of the first weight takes."""
        return int(array_of(stored[self.linears[0].weight]).dtype.itemsize)

    def matrices(self, stored: Stored) -> Array:
        """Return the weights, [blocks, outputs, features]."""
        if self.shared:
            return self.linears[0].matrices(array_of(stored[self.linears[0].weight]))
        return np.concatenate([linear.matrices(array_of(stored[linear.weight])) for linear in self.linears], axis=1)

    def intercepts(self, stored: Stored) -> Array:
        """Return the biases, [blocks, outputs]; where readers have their own, [readers, blocks, outputs]."""
        if not self.shared:
            return np.concatenate([intercept_of(linear, stored) for linear in self.linears], axis=1)
        if self.biases == 1:
            return intercept_of(self.linears[0], stored)
        return np.stack([intercept_of(linear, stored) for linear in self.linears])


def steps_of(
    model: onnx.ModelProto, linears: Sequence[Linear], surroundings: Surroundings, settings: Settings
) -> list[Step]:
    """Return the layers of a pruned network in the order in which they are fitted."""
    steps = _joint_steps(linears, surroundings, settings)
    return _ordered(model, steps) if any(step.shared for step in steps) else steps


def _joint_steps(linears: Sequence[Linear], surroundings: Surroundings, settings: Settings) -> list[Step]:
    """Return the layers in order, those that are fitted at once in one step, at the place of the first."""
    sharing: dict[str, list[Linear]] = {}
    for linear in linears:
        sharing.setdefault(linear.weight, []).append(linear)
    together: dict[object, list[Linear]] = {}
    for linear in linears:
        if len(sharing[linear.weight]) > 1:
            together.setdefault(linear.weight, []).append(linear)
            continue
        alone = linear.blocks > 1 or surroundings.normalised(linear, None, linear.rank)
        alone |= surroundings.shifted(linear) is not None
        alone |= settings.sequential and surroundings.shortcut(linear) is not None
        together.setdefault(id(linear) if alone else (linear.reading, linear.bias is None), []).append(linear)
    return [Step(tuple(step), isinstance(key, str), not settings.sequential) for key, step in together.items()]


def _ordered(model: onnx.ModelProto, steps: Sequence[Step]) -> list[Step]:
    """Return the steps so that each comes after those that its inputs depend on, and else in the order given."""
    before = _dependencies(model, steps)
    pending = dict(enumerate(steps))
    ordered: list[Step] = []
    while pending:
        waiting = sum(1 << number for number in pending)
        ready = (number for number in pending if not before[number] & waiting & ~(1 << number))
        number = next(ready, None)
        if number is None:
            # Two weights, each of which is read by what the other one gives.
            number = next(iter(pending))
        step = pending.pop(number)
        ordered.append(replace(step, beside=step.beside or bool(before[number] & waiting)))
    return ordered


def _dependencies(model: onnx.ModelProto, steps: Sequence[Step]) -> list[int]:
    """Return for each step the set of steps, as bits, that what it reads is computed from."""
    number_of = {id(linear.node): number for number, step in enumerate(steps) for linear in step.linears}
    made_from: dict[str, int] = {}
    for node in model.graph.node:
        bits = 1 << number_of[id(node)] if id(node) in number_of else 0
        for name in reads(node):
            bits |= made_from.get(name, 0)
        made_from.update(dict.fromkeys(node.output, bits))
    made_from.pop("", None)
    totals = []
    for step in steps:
        bits = 0
        for source in step.sources:
            bits |= made_from.get(source, 0)
        totals.append(bits)
    return totals
