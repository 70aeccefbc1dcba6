"""What one sweep of consumer-aware selection costs, beside a Cholesky factorisation of the same size.

    python tools/bench_obs.py --features 4096 --outputs 1536

The features are those of a ReLU layer: rectified mixtures of fewer sources with a falling spectrum; the consumer has
uneven weights. Printed are seconds, as multiples of one double-precision Cholesky too, the peak of memory, and the
share of the consumer's squares that is lost with a part of the units, also by the exact greedy search (--exact; slow).
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable
from time import perf_counter, process_time
from typing import TypeVar

import numpy as np
from scipy.linalg import lapack

from onnx_subprune.subspace import Term, loss_of_order, obs_sweep, rank, wanda_scores, zca_scores

T = TypeVar("T")


def make_term(features: int, outputs: int, seed: int) -> Term:
    """Covariance of a layer of ReLUs behind Gaussian mixtures, and a weight of uneven columns.

    With u, v of variance a^2, b^2 and correlation cos t, E[relu(u) relu(v)] = ab (sin t + (pi - t) cos t) / 2 pi and
    E[relu(u)] = a / sqrt(2 pi) (Cho and Saul, 2009).
    """
    rng = np.random.default_rng(seed)
    sources = features // 4
    mixing = rng.standard_normal((features, sources)) * np.exp(-3.0 * np.arange(sources) / sources)
    deviation = np.linalg.norm(mixing, axis=1)
    mixing /= deviation[:, None]
    covariance = np.empty((features, features))
    for start in range(0, features, 1024):
        rows = slice(start, start + 1024)
        cosine = np.clip(mixing[rows] @ mixing.T, -1.0, 1.0)
        angle = np.arccos(cosine)
        moments = (np.sin(angle) + (np.pi - angle) * cosine - 1.0) / (2.0 * np.pi)
        covariance[rows] = moments * deviation[rows, None] * deviation
    weight = rng.standard_normal((outputs, features)) * np.exp(0.5 * rng.standard_normal(features))
    return Term(covariance, weight, np.arange(features))


def timed(action: Callable[[], T]) -> tuple[T, np.ndarray]:
    """Return what an action returns and the seconds it took: on the wall, and of the processors."""
    start = np.array([perf_counter(), process_time()])
    result = action()
    return result, np.array([perf_counter(), process_time()]) - start


def cholesky_seconds(covariance: np.ndarray, runs: int) -> np.ndarray:
    """Median time of LAPACK's dpotrf on a copy with a small ridge."""
    seconds = []
    for _ in range(runs):
        matrix = covariance.copy().T
        matrix[np.diag_indices(len(matrix))] *= 1.0 + 1e-6
        (_, failed), taken = timed(lambda matrix=matrix: lapack.dpotrf(matrix, lower=1, overwrite_a=1, clean=0))
        seconds.append(taken)
        assert not failed
    return np.median(seconds, axis=0)


def peak_memory() -> float:
    """Peak resident set so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Measure and print."""
    given = arguments()
    size, options = given.features, {} if given.panel is None else {"panel": given.panel}
    term = make_term(size, given.outputs, 0)
    base = peak_memory()
    one = cholesky_seconds(term.covariance, given.runs)
    (order, loss), taken = timed(lambda: obs_sweep([term], size, **options))
    print(f"{size} features, {given.outputs} outputs")
    tell("Cholesky", one, one)
    tell("sweep", taken, one)
    print(f"peak memory {peak_memory():.2f} GiB, {base:.2f} of it before the sweep")
    again, taken = timed(lambda: loss_of_order([term], order))
    tell("loss of an order", taken, one)
    show("obs", loss)
    print(f"the two agree to {np.abs(again - loss).max() / loss[0]:.1e} of the whole")
    show("wanda", loss_of_order([term], rank(wanda_scores(term.weight, np.diagonal(term.covariance)))))
    if given.zca:
        show("zca", loss_of_order([term], rank(zca_scores(term.covariance))))
    if given.exact:
        exact, least = obs_sweep([term], size, panel=1)
        show("obs, exact", least)
        print(f"the same place in both orders: {(exact == order).mean():.1%} of the units")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=4096)
    parser.add_argument("--outputs", type=int, default=1536)
    parser.add_argument("--panel", type=int, default=None)
    parser.add_argument("--runs", type=int, default=3, help="factorisations to take the median of")
    parser.add_argument("--exact", action="store_true", help="also the exact greedy search")
    parser.add_argument("--zca", action="store_true", help="also the loss of the order of zca")
    return parser.parse_args()


def tell(name: str, taken: np.ndarray, one: np.ndarray) -> None:
    """Print the seconds of a step, and how many factorisations they are."""
    ratio = taken / one
    print(f"{name}: {taken[0]:.2f} s ({ratio[0]:.2f}), {taken[1]:.2f} s of the processors ({ratio[1]:.2f})")


def show(name: str, loss: np.ndarray) -> None:
    """Print the share of the consumer's squares that is lost with a part of the units."""
    size = len(loss) - 1
    parts = ", ".join(f"{part:g}: {loss[round(part * size)] / loss[0]:.6f}" for part in (0.9, 0.75, 0.5, 0.25, 0.1))
    print(f"{name}: lost with {parts}")


if __name__ == "__main__":
    main()
