"""Consumer-aware selection: greedy Optimal Brain Surgeon for units, and the loss of any order of units.

The loss of keeping the units S is the squared error at the group's consumers after the best affine recovery from S,
summed over the consumers. Units go one by one, the one of least loss first, all consumers together (`elimination` has
the algebra). One sweep gives the order and the whole curve of the loss.

**Panels.** P and W are large. The units of least score form a pool; inside it, removals are exact and cheap, and only
then does a panel of them go from P and W by products of matrices. The scores of units outside the pool are those of
the panel's start: a panel ends when the next unit to go costs more than the cheapest of them, so a unit outside is
overtaken only where taking out others made it cheaper. Losses are exact for the order found. `panel=1` is the exact
greedy search.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import blas

from onnx_subprune.subspace.elimination import Elimination, Local, Term, reduced, scaled_columns
from onnx_subprune.subspace.inverse import factor

__all__ = ["Term", "loss_of_order", "obs_sweep"]

Matrix = NDArray[np.float64]
Index = NDArray[np.intp]

RIDGE = 1e-6
PANEL = 128
# Features of a pool; so many are updated after every removal. A group of no more is swept exactly.
_POOL = 256


def obs_sweep(
    terms: Iterable[Term],
    size: int,
    *,
    uncorrected: Sequence[Matrix] = (),
    panel: int = PANEL,
    ridge: float = RIDGE,
) -> tuple[Index, Matrix]:
    """Order units by taking the one of least loss out, again and again.

    Optimal Brain Surgeon (Hassibi and Stork, 1993) for units in the place of single weights, and for all consumers of a
    group at once; *Optimal Brain Compression* (Frantar and Alistarh, 2022) sweeps single layers in this way. The loss
    of a unit B is tr(W_B (P_BB)^-1 W_Bᵀ), with P the inverse covariance (docs/mathematics.md, 3).

    Args:
        terms: what the consumers read of the group; each is used once.
        size: number of units of the group.
        uncorrected: [size, size] second moments of what the units add to a sum that no weight reads (queries times
            keys): taking units out adds the sum of their entries to the loss.
        panel: features that may go between two updates of all others; 1 for the exact greedy search.
        ridge: relative to the variance of each feature.

    Returns:
        order [size], most important unit first, and loss [size + 1]: with the k first units of it.

    >>> copies = Term(np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 4]]), np.ones((1, 3)), np.arange(3))
    >>> order, loss = obs_sweep([copies], 3)
    >>> int(order[0]), loss.round(3).tolist()  # the copy goes for nothing
    (2, [8.0, 4.0, 0.0, 0.0])

    """
    states = [Elimination(term, ridge) for term in terms]
    width = max((state.width for state in states), default=1)
    at_once, pooled = max(1, panel // width), max(1, _POOL // width)
    alive = np.ones(size, dtype=np.bool_)
    removed: list[int] = []
    steps: list[float] = []
    while alive.any():
        scores = np.zeros(size)
        for state in states:
            state.add_scores(scores)
        fixed = _uncorrected_scores(uncorrected, ~alive)
        everything = panel > 1 and int(alive.sum()) <= pooled
        pool, bound = _pool(scores + fixed, alive, int(alive.sum()) if everything else pooled)
        local = [part for part in (state.local(pool) for state in states) if part is not None]
        gone = _greedy(pool, local, uncorrected, ~alive, bound, limit=len(pool) if everything else at_once)
        removed += [unit for unit, _ in gone]
        steps += [step for _, step in gone]
        alive[removed] = False
        for state in states if alive.any() else ():
            state.eliminate(np.array([unit for unit, _ in gone], dtype=np.intp))
    return np.array(removed[::-1], dtype=np.intp), _curve(np.array(steps[::-1]))


def loss_of_order(
    terms: Iterable[Term], order: ArrayLike, *, uncorrected: Sequence[Matrix] = (), ridge: float = RIDGE
) -> Matrix:
    """Return the loss [size + 1] with the k first units of an order found in another way.

    With C = L Lᵀ in that order, the loss is the sum of the squared columns of W L that belong to removed features.

    Args:
        terms: of the group's consumers, one by one; each has its covariance C and weight W.
        order: all units, that to keep longest first: [size].
        uncorrected: as for `obs_sweep`.
        ridge: relative to the variance of each feature.

    >>> loss_of_order([Term(np.diag([1.0, 4.0]), np.ones((1, 2)), np.arange(2))], [1, 0], ridge=0.0).tolist()
    [5.0, 1.0, 0.0]

    """
    sequence = np.asarray(order, dtype=np.intp)
    place = np.argsort(sequence)
    steps = np.zeros(len(sequence))
    for term in terms:
        own = term.units >= 0
        places = np.where(own, place[term.units], -1)
        index = np.argsort(places, kind="stable")
        L, deviation = factor(term.covariance, index, ridge, spare=term.spare)
        weight = reduced(scaled_columns(term.weight, index, deviation))
        columns = blas.dtrmm(1.0, L, weight, side=1, lower=1, overwrite_b=1)
        squares = np.einsum("ij,ij->i", columns.T, columns.T)
        steps += np.bincount(places[index][own[index]], weights=squares[own[index]], minlength=len(steps))
    for moments in uncorrected:
        steps += _steps_of_sums(moments[np.ix_(sequence, sequence)])
    return _curve(steps)


def _curve(steps: Matrix) -> Matrix:
    """Return what goes with the units behind the first k, from what each unit adds: never rising, 0 at the end."""
    total = np.concatenate([[0.0], np.cumsum(steps[::-1])])
    return np.asarray(np.maximum.accumulate(total)[::-1], dtype=np.float64)


def _steps_of_sums(moments: Matrix) -> Matrix:
    """Return what each unit adds to the sum of the entries of those behind it, itself included."""
    return np.asarray(np.diagonal(moments) + 2.0 * np.triu(moments, 1).sum(axis=1), dtype=np.float64)


def _uncorrected_scores(uncorrected: Sequence[Matrix], gone: NDArray[np.bool_]) -> Matrix:
    """Return what each unit would add, given those that are gone: [size]."""
    scores = np.zeros(len(gone))
    for moments in uncorrected:
        scores += np.diagonal(moments) + 2.0 * moments[:, gone].sum(axis=1)
    return scores


def _pool(scores: Matrix, alive: NDArray[np.bool_], size: int) -> tuple[Index, float]:
    """Return the units of least score, ascending by index, and the least score outside."""
    units = np.flatnonzero(alive)
    ranked = units[np.lexsort((-units, scores[units]))]
    return np.sort(ranked[:size]), float(scores[ranked[size]]) if size < len(ranked) else np.inf


def _greedy(
    pool: Index,
    local: Sequence[Local],
    uncorrected: Sequence[Matrix],
    gone: NDArray[np.bool_],
    bound: float,
    *,
    limit: int,
) -> list[tuple[int, float]]:
    """Take units of a pool out, the cheapest first, until one would cost more than `bound`: units and their costs."""
    gone, waiting = gone.copy(), np.ones(len(pool), dtype=np.bool_)
    taken: list[tuple[int, float]] = []
    while len(taken) < limit and waiting.any():
        scores = _uncorrected_scores(uncorrected, gone)[pool]
        for part in local:
            part.add_scores(scores)
        scores[~waiting] = np.inf
        # Of equals the one of the highest index goes: the order lists lower indices first.
        slot = len(pool) - 1 - int(np.argmin(scores[::-1]))
        if taken and scores[slot] > bound:
            break
        taken.append((int(pool[slot]), float(scores[slot])))
        waiting[slot] = False
        gone[pool[slot]] = True
        for part in local:
            part.remove(slot)
    return taken
