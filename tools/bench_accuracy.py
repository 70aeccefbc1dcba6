"""Accuracy against size: every network, every method, tables and plots in docs/results.md.

    python tools/bench_accuracy.py --cache FOLDER --rival RIVAL_VENV/bin/python --torch TORCH_VENV/bin/python
    python tools/bench_accuracy.py --write-only

Figures are kept in docs/results.json: one that was measured once with the same settings, samples and seed is not
measured again, so the work can be done piece by piece (--networks, --methods, --parts), and the page can be written
from the file alone. Figures of methods that have changed are measured again with --again METHOD.

FOLDER holds what is made elsewhere: `minilm.onnx`, `sts-dev.npz`, `sts-test.npz` (tools/export_minilm.py) and
`smollm2.onnx`, `wiki2.test.ids.npy`, `wiki2.valid.ids.npy` (the data folder's tools/smollm2.py). The rivals run by
Pythons of their own, and neither is needed by this program:

    python -m venv RIVAL_VENV && RIVAL_VENV/bin/pip install onnxsim==0.8.1 onnxruntime
    python -m venv TORCH_VENV && TORCH_VENV/bin/pip install torch==2.13.0 torch-pruning==1.6.1 onnx
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from accuracy.figures import Figures
from accuracy.measure import Bench
from accuracy.methods import METHODS
from accuracy.networks import NETWORKS, Budget, budget_of
from accuracy.page import write
from accuracy.rivals import Pythons
from accuracy.studies import COSTED, SAMPLED, SAMPLES, SEEDED, SEEDS, measure_cost_of

ROOT = Path(__file__).resolve().parents[1]


def measure_tables(bench: Bench, arguments: argparse.Namespace) -> None:
    """Every method at every budget."""
    for name in arguments.networks:
        bench.dense(name, arguments.test)
        for method in arguments.methods:
            for budget in _wanted(name, arguments):
                bench.pruned(name, method, budget, arguments.samples or NETWORKS[name].samples, 0, arguments.test)


def _wanted(name: str, arguments: argparse.Namespace) -> list[Budget]:
    chosen = arguments.budgets
    return [budget for budget in NETWORKS[name].budgets if chosen is None or budget.name in chosen]


def measure_samples(bench: Bench, arguments: argparse.Namespace) -> None:
    """The methods that are studied, by the number of samples."""
    name, budget = SAMPLED
    for method in _studied(arguments) if name in arguments.networks else ():
        for count in SAMPLES:
            bench.pruned(name, method, budget_of(name, budget), count, 0, arguments.test)


def measure_seeds(bench: Bench, arguments: argparse.Namespace) -> None:
    """The methods that are studied, by the subset of the pool."""
    for name, budget in SEEDED:
        for method in _studied(arguments) if name in arguments.networks else ():
            for seed in SEEDS:
                count = arguments.samples or NETWORKS[name].samples
                bench.pruned(name, method, budget_of(name, budget), count, seed, arguments.test)


def measure_times(bench: Bench, arguments: argparse.Namespace) -> None:
    """The methods that are studied, beside plain inference."""
    for name in COSTED:
        for method in _studied(arguments) if name in arguments.networks else ():
            opened = NETWORKS[name].open(bench.cache, NETWORKS[name].test)
            measure_cost_of(bench.figures, opened, name, method, again=method in arguments.again)


def _studied(arguments: argparse.Namespace) -> list[str]:
    return [method for method in arguments.methods if METHODS[method].studied]


PARTS: dict[str, Callable[[Bench, argparse.Namespace], None]] = {
    "tables": measure_tables,
    "samples": measure_samples,
    "seeds": measure_seeds,
    "cost": measure_times,
}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--json", type=Path, default=ROOT / "docs" / "results.json", help="file of all figures")
    add("--out", type=Path, default=ROOT / "docs" / "results.md", help="the page; plots/ beside it holds the plots")
    add("--write-only", action="store_true", help="measure nothing")
    add("--cache", type=Path, help="folder of models and data that are made elsewhere")
    add("--rival", help="a Python that has onnxsim 0.8.1")
    add("--torch", help="a Python that has torch and torch_pruning")
    add("--networks", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS), metavar="NAME", help="only these")
    add("--methods", nargs="+", choices=tuple(METHODS), default=tuple(METHODS), metavar="NAME", help="only these")
    add("--parts", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="only these parts of the page")
    add("--budgets", nargs="+", metavar="NAME", help="only these, by their names on the page")
    add("--samples", type=int, help="calibrate with this many samples (the page shows the networks' own numbers)")
    add("--test", type=int, default=0, help="measure on this many test images (0: all; the page shows all)")
    add("--again", nargs="+", default=(), metavar="METHOD", help="measure the figures of these methods anew")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("onnx_subprune").setLevel(logging.ERROR)
    figures = Figures(arguments.json)
    if not arguments.write_only:
        pythons = Pythons(arguments.rival, arguments.torch)
        bench = Bench(figures, arguments.cache or Path(), pythons, frozenset(arguments.again))
        for part in arguments.parts:
            PARTS[part](bench, arguments)
    write(figures, arguments.out)


if __name__ == "__main__":
    main()
