"""One figure of latency: prune, time against the dense network, keep."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import onnx
from accuracy.methods import METHODS
from accuracy.networks import Budget, Opened
from accuracy.rivals import NoResultError, Task, onnxsim, search

from onnx_subprune.errors import SubpruneError
from onnx_subprune.evaluate import random_feeds
from onnx_subprune.latency import Effort, times
from onnx_subprune.model import input_specs
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import prune
from speed.networks import Timed

__all__ = ["Bench", "Store"]

logger = logging.getLogger(__name__)

_RIVAL = "onnxsim-norm"
_EFFORT = Effort(30, 4.0, sittings=6)

Figure = dict[str, Any]


class Store:
    """Figures in a file of JSON, which is written after each one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.figures: dict[str, Figure] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def measured(self, key: str, make: Callable[[], Figure], *, again: bool = False) -> Figure:
        """The figure of a key, measured now if it was not before."""
        if again or key not in self.figures:
            logger.info("%s", key)
            self.figures[key] = make()
            logger.info("  %s", self.figures[key])
            text = json.dumps(self.figures, indent=1, sort_keys=True) + "\n"
            part = self._path.with_name(f"{self._path.name}.part")
            part.write_text(text, encoding="utf-8")
            part.replace(self._path)
        return self.figures[key]


@dataclass
class Bench:
    """Makes the figures of one network.

    Attributes:
        name: of the network.
        timed: what it is.
        opened: its model and data.
        chosen: options of every run: effort, allocation, samples, threads, providers.
        rival: a Python that has onnxsim.
        metric: whether accuracy is measured too.

    """

    name: str
    timed: Timed
    opened: Opened
    chosen: Mapping[str, Any]
    rival: str | None = None
    metric: bool = False
    _models: dict[str, onnx.ModelProto] = field(default_factory=dict)

    def pruned(self, target: Target, round_to: int | str | None, batch: int) -> Figure:
        """Prune to a target, and time at a batch."""
        return self._pruned(target, round_to, batch, lambda model: self._timed(model, batch))

    def timed_at(self, target: Target, round_to: int | str | None, batches: Sequence[int]) -> Figure:
        """Prune to a target, and time at several batches: `ratios` holds one for each."""

        def figure(model: onnx.ModelProto) -> Figure:
            figures = [self._timed(model, batch, metric=self.metric and batch == batches[-1]) for batch in batches]
            return {**figures[-1], "ratios": [each["measured"] for each in figures]}

        return self._pruned(target, round_to, batches[0], figure)

    def _pruned(
        self, target: Target, round_to: int | str | None, batch: int, timed: Callable[[onnx.ModelProto], Figure]
    ) -> Figure:
        effort, samples = self.chosen["effort"], self.chosen["samples"]
        rest = {key: value for key, value in self.chosen.items() if key not in ("effort", "samples")}
        shapes = tuple(self.timed.shapes(self.opened, 1).items())
        options = Options.of_effort(
            effort, target=target, round_to=round_to, latency_batch=batch, input_shapes=shapes, batch_size=8, **rest
        )
        start = perf_counter()
        try:
            result = prune(self.opened.model, self.opened.calibration(samples, 0), options)
        except SubpruneError as error:
            return {"note": str(error)[:200]}
        seconds = round(perf_counter() - start, 1)
        figure = timed(result.model) | {"seconds": seconds}
        if result.latency is not None:
            figure |= {"predicted": round(result.latency.predicted, 4), "confirmed": round(result.latency.measured, 4)}
        return figure

    def onnxsim(self, macs: float, batch: int) -> Figure:
        """Prune by `onnxsim.pruning` to a share of the MACs, by the norms of weights, and time."""
        budget = Budget("equal MACs", Target("macs", macs))
        with tempfile.TemporaryDirectory() as folder:
            task = Task(self.opened, METHODS[_RIVAL], budget, (), Path(folder))
            try:
                with onnxsim(task, self.rival) as (make, probe):
                    model, _ = search(task, make, probe)
            except (NoResultError, SubpruneError) as error:
                return {"note": str(error).splitlines()[0][:200]}
            return self._timed(model, batch)

    def _timed(self, model: onnx.ModelProto, batch: int, *, metric: bool | None = None) -> Figure:
        dense = self.opened.model
        feeds = random_feeds(input_specs(dense), self.timed.shapes(self.opened, batch))
        threads, providers = self.chosen.get("threads"), self.chosen["providers"]
        found = times([dense, model], feeds, providers=providers, threads=threads, effort=_EFFORT)
        costs = [self.opened.cost(each).macs for each in (model, dense)]
        figure: Figure = {
            "macs": round(costs[0] / costs[1], 4),
            "measured": round(float(found.ratios[1]), 4),
            "interval": None if found.interval(1) is None else [round(end, 4) for end in found.interval(1) or ()],
            "dense_ms": round(float(found.milliseconds[0]), 3),
            "pruned_ms": round(float(found.milliseconds[1]), 3),
        }
        if self.metric if metric is None else metric:
            figure["metric"] = round(self.opened.evaluate(model), 3)
        return figure
