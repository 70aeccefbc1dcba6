"""The allowed widths of every group as a ladder, the loss on each rung, and the cost of a choice of rungs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.budget.allocate import cost_beside
from onnx_subprune.budget.curves import Curve
from onnx_subprune.errors import InternalError

__all__ = ["Ladders", "State", "losses_of", "rungs"]

State = tuple[int, ...]


class Ladders:
    """Groups that stand on rungs: a `State` holds one index per group, 0 the narrowest allowed width.

    Attributes:
        curves: one per group, with losses.
        widths: [rungs] allowed widths per group, rising.
        losses: [rungs] weight * loss ** power per group, never rising.
        calls: how often the cost was asked for.

    """

    def __init__(
        self,
        curves: Sequence[Curve],
        cost: Callable[[dict[str, int]], float],
        *,
        weights: Mapping[str, float] | None = None,
        power: float = 1.0,
        round_to: int = 1,
    ) -> None:
        self.curves = tuple(curves)
        self.widths = [rungs(curve, round_to) for curve in curves]
        scales = [1.0 if weights is None else weights[curve.group] for curve in curves]
        self.losses = [s * losses_of(c)[w] ** power for c, w, s in zip(curves, self.widths, scales, strict=True)]
        self.calls = 0
        self._cost = cost
        self._known: dict[State, float] = {}
        self._beside: tuple[State, dict[str, int]] | None = None

    @property
    def top(self) -> State:
        """Every group at its full width."""
        return tuple(len(widths) - 1 for widths in self.widths)

    @property
    def bottom(self) -> State:
        """Every group at its least width."""
        return (0,) * len(self.curves)

    def counts(self, state: State) -> dict[str, int]:
        """The units that every group keeps."""
        return {c.group: int(w[i]) for c, w, i in zip(self.curves, self.widths, state, strict=True)}

    def state(self, counts: Mapping[str, int]) -> State:
        """The rungs of these widths; a width that is not allowed counts as the next lower one, if there is one."""
        wanted = (counts[curve.group] for curve in self.curves)
        return tuple(max(0, int(np.searchsorted(w, k, "right")) - 1) for w, k in zip(self.widths, wanted, strict=True))

    def cost(self, state: State) -> float:
        """The cost of these widths; asked for once."""
        if state not in self._known:
            self.calls += 1
            self._known[state] = float(self._cost(self.counts(state)))
        return self._known[state]

    def cost_beside(self, state: State, group: int, rung: int) -> float:
        """The cost where one group stands on another rung; asked for once."""
        changed = (*state[:group], rung, *state[group + 1 :])
        if changed not in self._known:
            if self._beside is None or self._beside[0] is not state:
                self._beside = state, self.counts(state)
            self.calls += 1
            name, width = self.curves[group].group, int(self.widths[group][rung])
            self._known[changed] = float(cost_beside(self._cost, self._beside[1], name, width))
        return self._known[changed]

    def loss(self, state: State) -> float:
        """The sum of the groups' losses."""
        return math.fsum(float(losses[i]) for losses, i in zip(self.losses, state, strict=True))


def rungs(curve: Curve, round_to: int) -> NDArray[np.intp]:
    """The widths that a group may have, rising: multiples that reach its minimum, and its size.

    Args:
        curve: of the group.
        round_to: widths are multiples of this and of the curve's own.

    >>> rungs(Curve("conv1", 10, np.arange(10), np.linspace(0, 1, 11)), 4).tolist()
    [4, 8, 10]

    """
    multiple = math.lcm(curve.round_to, round_to)
    first = multiple * math.ceil(curve.minimum / multiple)
    least = curve.size - curve.least_cut
    return np.append(np.arange(first, least + 1, multiple, dtype=np.intp), np.intp(curve.size))


def losses_of(curve: Curve) -> NDArray[np.float64]:
    """The losses of a curve [size + 1].

    Args:
        curve: of a group.

    Raises:
        InternalError: it has none.

    """
    if curve.loss is None:
        raise InternalError(f"curve of group {curve.group!r}: expected losses, found none; please report this")
    return curve.loss
