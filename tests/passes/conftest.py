"""Helpers of the tests of passes: models from text, passes on models, equality in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_subprune.model import to_graph, to_model
from onnx_subprune.passes import Pass, overridable_initializers
from onnx_subprune.structure import Structure, infer

Feeds = Mapping[str, np.ndarray]
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def build() -> Callable[..., onnx.ModelProto]:
    """`build(text, opset=17, **arrays)`: a checked model from the text of its graph, with arrays as initializers."""

    def build(
        text: str, opset: int = 17, functions: str = "", domains: str = "", **arrays: np.ndarray
    ) -> onnx.ModelProto:
        header = f'<ir_version: 8, opset_import: ["" : {opset}{domains}]>'
        model = onnx.parser.parse_model(f"{header}\n{text}\n{functions}")
        model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
        onnx.checker.check_model(model)
        return model

    return build


@pytest.fixture
def apply() -> Callable[..., onnx.ModelProto]:
    """`apply(model, *passes)`: a new model, the passes run on the graph of the old one."""

    def apply(model: onnx.ModelProto, *passes: Pass) -> onnx.ModelProto:
        source = onnx.ModelProto()
        source.CopyFrom(model)
        graph = to_graph(source)
        for one in passes:
            result = one(graph)
            assert result.refusals == ()
        after = to_model(graph, source)
        onnx.checker.check_model(after)
        return after

    return apply


@pytest.fixture
def same_outputs(rng: np.random.Generator) -> Callable[..., None]:
    """`same_outputs(before, after, rtol=1e-5, **dims)`: equal in ONNX Runtime, unoptimised, on random inputs.

    The tolerance is relative to the largest entry of each output; symbolic dimensions are 2 unless given.
    """

    def same_outputs(before: onnx.ModelProto, after: onnx.ModelProto, rtol: float = 1e-5, **dims: int) -> None:
        feeds = random_feeds(before, rng, dims)
        for expected, found in zip(run(before, feeds), run(after, feeds), strict=True):
            assert expected.dtype == found.dtype
            assert expected.shape == found.shape
            assert np.isfinite(expected).all()
            scale = np.abs(expected, dtype=np.float64).max(initial=1e-30)
            np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * scale)

    return same_outputs


@pytest.fixture
def real_model() -> Callable[[str], onnx.ModelProto]:
    """`real_model("imagenet/x.onnx")`: a network of the shared data; the test is skipped, saying so, without it."""

    def real_model(name: str) -> onnx.ModelProto:
        path = DATA / name
        if not path.exists():
            pytest.skip(f"real network {name} is not there: put the shared data beside the project to run this test")
        return onnx.load(path)

    return real_model


def run(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, dict(feeds))
    return outputs


def random_feeds(model: onnx.ModelProto, rng: np.random.Generator, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
    initializers = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in initializers:
            kind = value.type.tensor_type
            shape = [dims.get(dim.dim_param, 2) if dim.dim_param else dim.dim_value for dim in kind.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            feeds[value.name] = rng.normal(size=shape).astype(dtype)
    return feeds


@pytest.fixture
def structured() -> Callable[..., Structure]:
    """`structured(model, prune_normalised=False)`: the structure of a model with static inputs, and an open graph."""

    def structured(model: onnx.ModelProto, *, prune_normalised: bool = False) -> Structure:
        shapes = {
            value.name: tuple(dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim)
            for value in model.graph.input
        }
        known = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return infer(to_graph(known), shapes, overridable_initializers(model), prune_normalised=prune_normalised)

    return structured


@pytest.fixture
def draw() -> Callable[..., np.ndarray]:
    """`draw(4, 6, seed=0)`: random float32 values of this shape, the same for the same seed."""

    def draw(*shape: int, seed: int = 0) -> np.ndarray:
        values: np.ndarray = np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)
        return values

    return draw


@pytest.fixture
def outputs() -> Callable[..., list[np.ndarray]]:
    """`outputs(model, x=array, ...)`: the outputs of ONNX Runtime, unoptimised."""

    def outputs(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
        return run(model, feeds)

    return outputs
