"""Small networks from text, the samples to fit them on, and pairs of a network and what is left of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.model import input_specs, open_session, run
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import Options, RecoveryOptions
from onnx_subprune.pipeline import apply
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.result import Result

Net = Callable[..., onnx.ModelProto]
Kept = Mapping[str, Sequence[int]]


def _values(spec: Any, rng: np.random.Generator) -> np.ndarray:
    if isinstance(spec, np.ndarray | np.generic):
        return np.asarray(spec)
    fan = math.prod(spec[1:]) if len(spec) > 2 else (spec[0] if len(spec) == 2 else 4)
    return np.asarray(rng.standard_normal(tuple(spec)) / math.sqrt(max(1, fan)), np.float32)


@pytest.fixture
def net() -> Net:
    """`net(graph text, **weights)`: a checked model; a weight is an array or a shape."""

    def build(text: str, opset: int = 17, ir: int = 8, **weights: object) -> onnx.ModelProto:
        rng = np.random.default_rng(1)
        model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]>\n{text}')
        for name, spec in weights.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(_values(spec, rng), name))
        onnx.checker.check_model(model)
        return model

    return build


def shapes_of(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the sizes of the inputs that are fed, 3 for those that are not fixed."""
    return {
        value.name: [dim.dim_value or 3 for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.input
        if value.name not in {tensor.name for tensor in model.graph.initializer}
    }


def drawn(model: onnx.ModelProto, count: int, seed: int = 7) -> dict[str, np.ndarray]:
    """Return `count` samples of normal noise."""
    rng = np.random.default_rng(seed)
    shapes = shapes_of(model)
    return {name: rng.standard_normal((count, *shape[1:])).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def draw() -> Callable[..., dict[str, np.ndarray]]:
    """Return `drawn`."""
    return drawn


@pytest.fixture
def batches() -> Callable[..., list[dict[str, np.ndarray]]]:
    """`batches(model, sizes)`: inputs of as many samples each."""

    def make(model: onnx.ModelProto, sizes: Sequence[int] = (4, 4, 2)) -> list[dict[str, np.ndarray]]:
        return [drawn(model, size, seed) for seed, size in enumerate(sizes)]

    return make


@pytest.fixture
def samples() -> Callable[..., Dataset]:
    """`samples(model, count)`: a data set of noise."""

    def draw(model: onnx.ModelProto, count: int = 64, seed: int = 7) -> Dataset:
        return open_data(drawn(model, count, seed), input_specs(model))

    return draw


@pytest.fixture
def pruned() -> Callable[..., Result]:
    """`pruned(model, {group: kept units}, data, **options)`: the result of exact recovery by a plan."""

    def prune(model: onnx.ModelProto, kept: Kept, data: Any = None, **options: Any) -> Result:
        options = {"recovery": "exact", "batch_size": 8, "threads": 1} | options
        analysis = analyse(model, options.pop("shapes", None))
        assert set(kept) <= {group.name for group in analysis.structure.prunable}, [
            (group.name, group.size, group.reasons) for group in analysis.structure.groups
        ]
        groups = tuple(
            PlannedGroup(g.name, g.size, tuple(kept.get(g.name, range(g.size)))) for g in analysis.structure.prunable
        )
        recovery = RecoveryOptions(
            recovery=options["recovery"],
            ridge=0.0,
            one_pass=options.get("one_pass", False),
            rows=32,
            sweeps=options.get("sweeps", 1),
        )
        plan = Plan(analysis.fingerprint, "by hand", groups, recovery)
        return apply(plan, model, drawn(model, 64) if data is None else data, Options(**options))

    return prune


@pytest.fixture
def distance() -> Callable[..., float]:
    """`distance(one, other)`: the largest relative error of an output on data that nothing was fitted on."""

    def measure(one: onnx.ModelProto, other: onnx.ModelProto, feeds: Mapping[str, np.ndarray] | None = None) -> float:
        feeds = feeds or drawn(one, shapes_of(one)[one.graph.input[0].name][0], seed=99)
        expected, found = (run(open_session(model, threads=1), feeds) for model in (one, other))
        assert all(np.abs(value).max() > 0 for value in expected.values())
        return max(relative_error(found[name], value) for name, value in expected.items())

    return measure
