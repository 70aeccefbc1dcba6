"""One figure: prune by a method to a budget, count what is left, measure."""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import onnx
import onnxruntime

from accuracy.figures import DENSE, Case, Figure, Figures, case_of, dense_case
from accuracy.methods import METHODS, OURS, Method
from accuracy.networks import NETWORKS, THREADS, Budget, Network, Opened
from accuracy.rivals import Pythons, rival
from onnx_subprune.calibration import Statistics
from onnx_subprune.errors import SubpruneError
from onnx_subprune.factorisation import factorise
from onnx_subprune.options import Options
from onnx_subprune.pipeline import prune

__all__ = ["Bench", "versions"]

logger = logging.getLogger(__name__)


def versions() -> str:
    """Versions of what a figure was made with."""
    programs = {"onnx-subprune": version("onnx-subprune"), "onnxruntime": onnxruntime.__version__}
    programs |= {"numpy": version("numpy"), "Python": platform.python_version()}
    return ", ".join(f"{name} {number}" for name, number in programs.items())


@dataclass
class Bench:
    """Measures, and keeps what it measured.

    Attributes:
        figures: those of the file.
        cache: folder of models that are made elsewhere.
        pythons: of the rivals.
        again: methods whose figures are measured anew.

    """

    figures: Figures
    cache: Path
    pythons: Pythons = field(default_factory=Pythons)
    again: frozenset[str] = frozenset()
    _opened: tuple[str, int, Opened] | None = None
    _statistics: tuple[tuple[object, ...], Statistics] | None = None

    def dense(self, name: str, test: int) -> Figure:
        """The figure of the dense network."""

        def make() -> Figure:
            opened = self._open(name, test)
            return Figure(opened.evaluate(opened.model), 1.0, 1.0, made=versions())

        return self.figures.measured(dense_case(name, test), make, again=DENSE in self.again)

    def pruned(self, name: str, method: str, budget: Budget, samples: int, seed: int, test: int) -> Figure:
        """The figure of a pruned network."""
        case = case_of(name, method, budget, samples, seed, test)
        again = method in self.again
        return self.figures.measured(case, lambda: self._make(case, METHODS[method], budget), again=again)

    def _make(self, case: Case, method: Method, budget: Budget) -> Figure:
        logger.info("%s", case.key)
        network, opened = NETWORKS[case.network], self._open(case.network, case.test)
        start = perf_counter()
        if method.program == OURS:
            made = self._ours(case, method, budget, network, opened)
        else:
            data = opened.calibration(case.samples, case.seed) if method.calibrated else None
            made = rival(network, opened, method, budget, data, self.pythons)
            made = replace(made, seconds=perf_counter() - start)
        logger.info("  %s at MACs %s %s", made.metric, made.macs, made.note)
        return replace(made, made=versions())

    def _ours(self, case: Case, method: Method, budget: Budget, network: Network, opened: Opened) -> Figure:
        samples = case.samples or network.samples
        start = perf_counter()
        try:
            model = self._run(case, method, self._options(case, method, budget, network, opened), opened, samples)
        except SubpruneError as error:
            return Figure(None, note=str(error).splitlines()[0][:200])
        seconds = perf_counter() - start
        dense, small = opened.cost(opened.model), opened.cost(model)
        shares = (small.macs / dense.macs, small.parameters / dense.parameters)
        return Figure(opened.evaluate(model), *shares, seconds=seconds)

    def _open(self, name: str, test: int) -> Opened:
        if self._opened is None or self._opened[:2] != (name, test):
            self._opened = (name, test, NETWORKS[name].open(self.cache, test or NETWORKS[name].test))
        return self._opened[2]

    def _options(self, case: Case, method: Method, budget: Budget, network: Network, opened: Opened) -> Options:
        """A factorisation has no units: it is asked for the same size, from all layers."""
        whole = method.factorises or budget.only is None
        return method.options(
            target=budget.equal if method.factorises else budget.target,
            input_shapes=tuple(opened.shapes.items()),
            only=() if whole else opened.groups(str(budget.only)),
            batch_size=network.batch,
            threads=THREADS,
            seed=case.seed,
        )

    def _run(self, case: Case, method: Method, options: Options, opened: Opened, samples: int) -> onnx.ModelProto:
        """Prune or factorise; the statistics of one pass serve for all budgets and orders."""
        key = (case.network, samples, case.seed, method.factorises)
        known = self._statistics[1] if method.one_pass and self._statistics and self._statistics[0] == key else None
        data = opened.calibration(samples, case.seed) if known is None else None
        way = factorise if method.factorises else prune
        result = way(opened.model, data, options, statistics=known)
        if method.one_pass and result.statistics is not None:
            self._statistics = (key, result.statistics)
        return result.model
