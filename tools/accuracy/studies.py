"""What is measured beside the main tables: numbers of samples, subsets of the pool, and time."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
from bench_cost import timed_inference

from accuracy.figures import Case, Figure, Figures
from accuracy.measure import versions
from accuracy.methods import METHODS
from accuracy.networks import NETWORKS, Opened
from accuracy.sampler import Sampler
from onnx_subprune.calibration import Dataset
from onnx_subprune.model import open_session
from onnx_subprune.options import Options
from onnx_subprune.pipeline import prune

__all__ = ["COSTED", "SAMPLED", "SAMPLES", "SEEDED", "SEEDS", "cost_case", "measure_cost_of"]

logger = logging.getLogger(__name__)

SAMPLED, SAMPLES = ("resnet56", "macs=0.5"), (64, 128, 256, 512, 1024, 2048, 4096)
SEEDED = (("resnet56", "macs=0.5"), ("resnet56", "macs=0.3"), ("resnet32", "macs=0.5"))
SEEDS = (0, 1, 2)
COSTED, PAIRS = ("resnet56",), 3


def cost_case(name: str, method: str) -> Case:
    """The time of a method at the middle budget of a network."""
    network = NETWORKS[name]
    budget = network.budgets[len(network.budgets) // 2]
    return Case(f"{name} time", method, METHODS[method].signature, budget.name, network.samples)


def measure_cost_of(figures: Figures, opened: Opened, name: str, method: str, *, again: bool) -> Figure:
    """Whole prune and plain inference in turns on the same samples; the ratio is the median of the pairs."""

    def make() -> Figure:
        network = NETWORKS[name]
        budget = network.budgets[len(network.budgets) // 2]
        options = METHODS[method].options(target=budget.target, batch_size=network.batch)
        return _timed(opened, opened.calibration(network.samples, 0), options)

    return figures.measured(cost_case(name, method), make, again=again)


def _timed(opened: Opened, data: Dataset, options: Options) -> Figure:
    session = open_session(opened.model, threads=options.threads)
    timed_inference(session, data, options.batch_size)
    plain: list[float] = []
    whole: list[float] = []
    rooms: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(PAIRS):
            plain.append(timed_inference(session, data, options.batch_size))
            with Sampler() as sampler:
                prune(opened.model, data, options).save(Path(folder) / "pruned.onnx")
            whole.append(sampler.seconds)
            rooms.append(sampler.packages())
            logger.info("inference %.2f s, pruning %.2f s", plain[-1], whole[-1])
    ratios = [pruning / seconds for pruning, seconds in zip(whole, plain, strict=True)]
    shares = [
        {room: seconds / inference for room, seconds in parts.items()}
        for parts, inference in zip(rooms, plain, strict=True)
    ]
    middle = {room: round(float(np.median([each.get(room, 0.0) for each in shares])), 3) for room in shares[0]}
    extra = {"ratio": round(float(np.median(ratios)), 3), "low": round(min(ratios), 3), "high": round(max(ratios), 3)}
    return Figure(None, seconds=float(np.median(plain)), extra={**extra, "rooms": middle}, made=versions())
