"""Better widths from given ones: many groups give and take at once, and the cost stays within its limit.

Near a state the cost is taken for a sum of what each group changes it by, alone. Under that model the best state
within a reach of some rungs is a multiple-choice knapsack, which dynamic programming solves over a grid of costs. The
answer counts only if the real cost is within the limit and the loss is less. As products of widths are no sums, the
reach is halved where nothing better was found, down to single rungs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.budget.ladder import Ladders, State

__all__ = ["Moves", "choose", "improve", "moves_within", "settle"]

_GRID = 2048
_MOST_MOVES = 33
_RETRIES = 6
_OPTIMISM = 0.1
_EPSILON = 1e-12


@dataclass(frozen=True, eq=False)
class Moves:
    """Rungs that a group may move to, by how much each changes the cost, and the loss there: all [moves]."""

    rungs: NDArray[np.intp]
    change: NDArray[np.float64]
    loss: NDArray[np.float64]


def improve(ladders: Ladders, state: State, limit: float, calls: int) -> State:
    """Move to states of less loss whose cost is within the limit, until single rungs no longer help.

    Args:
        ladders: the groups.
        state: where to start; its cost is within the limit.
        limit: the largest cost allowed.
        calls: stop when the cost has been asked for about this often.

    """
    # Where one factor of a product grows and another shrinks, the sum of both changes says more than the truth. So what
    # the model finds with more to spend than there is may fit all the same; it is tried last, as it often does not.
    for extra in (0.0, _OPTIMISM * abs(limit)):
        reach = max((len(widths) - 1 for widths in ladders.widths), default=0)
        while reach and ladders.calls < calls:
            better = _best_exchange(ladders, state, limit, reach, extra)
            if better is None:
                reach //= 2
            else:
                state = better
    return state


def _best_exchange(ladders: Ladders, state: State, limit: float, reach: int, extra: float) -> State | None:
    ends = [(max(0, rung - reach), min(top, rung + reach)) for rung, top in zip(state, ladders.top, strict=True)]
    moves = [moves_within(ladders, state, group, *ends[group]) for group in range(len(state))]
    moved = settle(ladders, moves, limit - ladders.cost(state) + extra, limit)
    if moved is None or not ladders.loss(moved) < ladders.loss(state) * (1 - _EPSILON):
        return None
    return moved


def settle(ladders: Ladders, moves: Sequence[Moves], slack: float, limit: float) -> State | None:
    """The choice of least loss whose real cost is within the limit; where it is too high, that much less is spent.

    Args:
        ladders: the groups.
        moves: of each group.
        slack: by how much the changes of cost may add up.
        limit: the largest cost allowed.

    """
    for _ in range(_RETRIES):
        moved = choose(moves, slack)
        if moved is None or (excess := ladders.cost(moved) - limit) <= 0.0:
            return moved
        slack -= excess
    return None


def moves_within(ladders: Ladders, state: State, group: int, low: int, high: int) -> Moves:
    """The rungs that a group may move to, its present one among them, while the others stay.

    Args:
        ladders: the groups.
        state: their rungs.
        group: which may move, by index.
        low: its lowest rung.
        high: its highest.

    """

    def cost(rung: int) -> float:
        return ladders.cost_beside(state, group, rung)

    present = state[group]
    if low < present and np.isinf(cost(low)):
        # What has gone as a whole needs a unit of this group.
        low += 1
    probes = sorted({low, (low + present) // 2, present, (present + high + 1) // 2, high})
    costs = [cost(rung) for rung in probes]
    chosen = _sampled_rungs(low, present, high)
    change = np.interp(chosen, probes, costs) - ladders.cost(state)
    return Moves(chosen, change, ladders.losses[group][chosen])


def _sampled_rungs(low: int, present: int, high: int) -> NDArray[np.intp]:
    """All rungs from `low` to `high`, or some of them where they are many: the near ones, and evenly spaced ones."""
    if high - low < _MOST_MOVES:
        return np.arange(low, high + 1)
    near = np.arange(max(low, present - 4), min(high, present + 4) + 1)
    return np.unique(np.concatenate([near, np.linspace(low, high, _MOST_MOVES - 8).round().astype(np.intp)]))


def choose(moves: Sequence[Moves], slack: float) -> State | None:
    """The rungs of least loss whose changes of cost sum to at most `slack`, to within rounding; None if none do.

    A multiple-choice knapsack, solved by dynamic programming over a grid of costs.

    Args:
        moves: of each group.
        slack: by how much the changes of cost may add up.

    """
    spare = slack - sum(float(np.min(o.change)) for o in moves)
    if spare < -_EPSILON * abs(slack):
        return None
    extra = [o.change - np.min(o.change) for o in moves]
    step = min(max(spare, 0.0), sum(float(np.max(e)) for e in extra)) / _GRID
    # Moves of infinite cost are out of reach.
    prices = [
        np.rint(np.minimum(e / step, _GRID + 1)).astype(np.int64) if step else np.where(e > 0, _GRID + 1, 0)
        for e in extra
    ]
    least = [np.zeros(_GRID + 1)]
    for price, move in zip(prices, moves, strict=True):
        least.append(_with_group(least[-1], price, move.loss))
    return _traced(moves, prices, least)


def _with_group(
    least: NDArray[np.float64], prices: NDArray[np.int64], losses: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One group more: [grid + 1] the least loss for every budget."""
    best, trial = np.full(_GRID + 1, np.inf), np.empty(_GRID + 1)
    for price, loss in zip(prices.tolist(), losses.tolist(), strict=True):
        if price <= _GRID:
            reached = np.add(least[: _GRID + 1 - price], loss, out=trial[price:])
            np.minimum(best[price:], reached, out=best[price:])
    return best


def _traced(moves: Sequence[Moves], prices: Sequence[NDArray[np.int64]], least: Sequence[NDArray[np.float64]]) -> State:
    """The moves that lead to the least loss; of equal ones the first."""
    budget, rungs = int(np.argmin(least[-1])), list[int]()
    for move, price, before in zip(reversed(moves), reversed(prices), least[-2::-1], strict=True):
        within = np.flatnonzero(price <= budget)
        index = int(within[np.argmin(before[budget - price[within]] + move.loss[within])])
        rungs.append(int(move.rungs[index]))
        budget -= int(price[index])
    return tuple(reversed(rungs))
