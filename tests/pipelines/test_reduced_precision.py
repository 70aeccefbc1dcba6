"""Weights in float16 and bfloat16: corrected in double, stored in their own type, and checked in float32."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune import Options, Target, analyse, prune
from onnx_subprune.model import in_float32, measure_cost, open_session, run, to_graph, to_model, widened
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import disagreement, relative_error
from onnx_subprune.passes import FoldBatchNorm
from onnx_subprune.plan import Plan

ZOO = Path(__file__).resolve().parents[1] / "zoo"
sys.path.insert(0, str(ZOO.parents[1] / "tools"))
try:
    from zoo import read_entries, read_skeleton, refill
finally:
    sys.path.pop(0)

ENTRIES = {entry.name: entry for entry in read_entries(ZOO / "zoo.json")}
HALVES = {TensorProto.FLOAT16: np.dtype(np.float16), TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16)}
SMALL = 0.5
ORACLE = 1e-4
NAMES = ("bert_ts17", "llama_dynamo18", "vit_ts17", "mobilenet_v1_ts17")


def skeleton(name: str) -> onnx.ModelProto:
    model: onnx.ModelProto = refill(read_skeleton(ZOO / "skeletons" / f"{name}.onnx.xz"))
    return model


def narrowed(tensor: onnx.TensorProto, half: int) -> np.ndarray:
    """Return the values in half precision; those of masks become the largest there are."""
    largest = float(ml_dtypes.finfo(HALVES[half]).max)
    return np.clip(numpy_helper.to_array(tensor), -largest, largest).astype(HALVES[half])


def stored_in(model: onnx.ModelProto, half: int) -> onnx.ModelProto:
    """Return the model with its float weights stored in half precision, each read through a Cast to float32."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    casts = []
    for tensor in result.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = narrowed(tensor, half)
            casts.append(helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=TensorProto.FLOAT))
            tensor.CopyFrom(numpy_helper.from_array(values, f"{tensor.name}_half"))
    nodes = [*casts, *result.graph.node]
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result


def computed_in(model: onnx.ModelProto, half: int) -> onnx.ModelProto:
    """Return the model with float32 replaced everywhere: what `model.half()` would have exported."""
    result = onnx.shape_inference.infer_shapes(model)
    for tensor in (
        *result.graph.initializer,
        *(a.t for n in result.graph.node for a in n.attribute if a.HasField("t")),
    ):
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(narrowed(tensor, half), tensor.name))
    for value in (*result.graph.input, *result.graph.output, *result.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = half
    for node in result.graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = half
    return result


def types(model: onnx.ModelProto) -> set[int]:
    floats = {TensorProto.FLOAT, *HALVES}
    return {t.data_type for t in model.graph.initializer if t.data_type in floats and len(t.dims) > 1}


@pytest.mark.parametrize("half", HALVES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_stored_in_half_precision_holds_the_oracle(name: str, half: int, plan_at_random: Callable[..., Plan]) -> None:
    entry, model = ENTRIES[name], stored_in(skeleton(name), half)
    analysis = analyse(model, entry.shapes(0))
    assert len(analysis.structure.prunable) == len(analyse(skeleton(name), entry.shapes(0)).structure.prunable)
    shrunk, masked = references(analysis, plan_at_random(analysis, 0.5))
    onnx.checker.check_model(shrunk, full_check=True)
    assert half in types(shrunk)
    assert measure_cost(shrunk, entry.shapes(0)).parameters < measure_cost(model, entry.shapes(0)).parameters
    for which in (0, 1):
        expected, found = (run(open_session(each), entry.feeds(which, 1)) for each in (masked, shrunk))
        for output, value in expected.items():
            assert relative_error(found[output], value) < ORACLE, output


@pytest.mark.parametrize("name", NAMES)
def test_computed_in_float16_holds_the_oracle(name: str, plan_at_random: Callable[..., Plan]) -> None:
    """To 1e-4 in float32, and to the noise of float16 itself: what the runtime loses on the masked model by it."""
    entry, model = ENTRIES[name], computed_in(skeleton(name), TensorProto.FLOAT16)
    shapes = entry.shapes(0)
    analysis = analyse(model, shapes)
    shrunk, masked = references(analysis, plan_at_random(analysis, 0.5))
    onnx.checker.check_model(shrunk, full_check=True)
    assert types(shrunk) == {TensorProto.FLOAT16}
    feeds = {
        key: value.astype(np.float16) if value.dtype == np.float32 else value
        for key, value in entry.feeds(0, 1).items()
    }
    assert disagreement(shrunk, masked, feeds) < ORACLE
    expected, found = (run(open_session(each), feeds) for each in (masked, shrunk))
    exact = run(open_session(in_float32(masked)), widened(feeds))
    for output, value in exact.items():
        noise = relative_error(expected[output], value)
        assert relative_error(found[output], value) < 3 * noise + 2e-3, output


@pytest.mark.parametrize(
    ("half", "select"),
    [
        (TensorProto.FLOAT16, "zca"),
        (TensorProto.BFLOAT16, "saw"),
        pytest.param(TensorProto.BFLOAT16, "zca", marks=pytest.mark.slow),
        pytest.param(TensorProto.FLOAT16, "saw", marks=pytest.mark.slow),
        pytest.param(TensorProto.FLOAT16, "magnitude", marks=pytest.mark.slow),
        pytest.param(TensorProto.BFLOAT16, "magnitude", marks=pytest.mark.slow),
    ],
)
def test_corrections_are_stored_in_the_type_of_the_weight(half: int, select: str) -> None:
    dense = skeleton("llama_ts17")
    model = stored_in(dense, half)
    ids = np.random.default_rng(0).integers(0, 96, (96, 12))
    options = Options(target=Target("units", SMALL), select=select, only=("*mlp*",))
    wide, narrow = (prune(each, {"input_ids": ids}, options) for each in (in_float32(model), model))
    assert narrow.plan.groups == wide.plan.groups
    assert types(narrow.model) == {half}
    feeds = {"input_ids": ids[:4], "attention_mask": np.ones((4, 12), np.int64)}
    expected, found = (run(open_session(each.model), feeds)["output0"] for each in (wide, narrow))
    # Eight or eleven bits of a weight, in a few layers.
    assert relative_error(found, expected) < (2e-2 if half == TensorProto.BFLOAT16 else 3e-3)


def test_a_network_computed_in_float16_is_pruned_and_recovered() -> None:
    model = computed_in(skeleton("bert_ts17"), TensorProto.FLOAT16)
    ids = np.random.default_rng(0).integers(0, 96, (200, 12))
    half, wide = (
        prune(each, {"input_ids": ids}, Options(target=Target("units", 0.75))) for each in (model, in_float32(model))
    )
    assert types(half.model) == {TensorProto.FLOAT16}
    assert half.errors == pytest.approx(wide.errors, rel=0.1)


NORMALISED = """
<ir_version: 9, opset_import: ["" : 18]>
net (float[N, 3, 5, 5] x) => (float[N, 4, 5, 5] y) {
    h = Cast<to = 16>(x)
    a = Conv(h, w)
    b = BatchNormalization(a, scale, shift, mean, variance)
    y = Cast<to = 1>(b)
}
"""


def test_batch_normalisation_in_bfloat16_is_folded() -> None:
    model = onnx.parser.parse_model(NORMALISED)
    rng = np.random.default_rng(0)
    values = {"w": rng.standard_normal((4, 3, 1, 1)), "scale": rng.uniform(1, 2, 4), "shift": rng.uniform(1, 2, 4)}
    values |= {"mean": rng.standard_normal(4), "variance": rng.uniform(1, 2, 4)}
    for name, array in values.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(ml_dtypes.bfloat16), name))
    graph = to_graph(model)
    FoldBatchNorm()(graph)
    folded = to_model(graph, model)
    assert [node.op_type for node in folded.graph.node] == ["Cast", "Conv", "Cast"]
    assert types(folded) == {TensorProto.BFLOAT16}
    x = {"x": rng.standard_normal((2, 3, 5, 5)).astype(np.float32)}
    expected, found = (run(open_session(in_float32(each)), x)["y"] for each in (model, folded))
    assert relative_error(found, expected) < 2e-2


def test_tensors_in_bfloat16_go_through_the_graph_library_unchanged() -> None:
    model = stored_in(skeleton("llama_ts17"), TensorProto.BFLOAT16)
    assert to_model(to_graph(model), model).SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("name", NAMES)
def test_computed_in_bfloat16_holds_the_oracle(name: str, plan_at_random: Callable[..., Plan]) -> None:
    """ONNX Runtime has no kernels: such a network runs as its twin, and stays in bfloat16."""
    entry, model = ENTRIES[name], computed_in(skeleton(name), TensorProto.BFLOAT16)
    analysis = analyse(model, entry.shapes(0))
    assert len(analysis.structure.prunable) == len(analyse(skeleton(name), entry.shapes(0)).structure.prunable)
    shrunk, masked = references(analysis, plan_at_random(analysis, 0.5))
    assert types(shrunk) == {TensorProto.BFLOAT16}
    for which in (0, 1):
        feeds = {
            key: value.astype(ml_dtypes.bfloat16) if value.dtype == np.float32 else value
            for key, value in entry.feeds(which, 1).items()
        }
        expected, found = (run(open_session(each), feeds) for each in (masked, shrunk))
        for output, value in expected.items():
            assert relative_error(found[output], value) < ORACLE, output


def test_weights_that_stay_in_a_file_are_widened_where_they_are_read(tmp_path: Path) -> None:
    model = computed_in(skeleton("llama_dynamo18"), TensorProto.FLOAT16)
    # Saving changes what it saves.
    saved = onnx.ModelProto()
    saved.CopyFrom(model)
    onnx.save(saved, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=64)
    placed = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    twin = in_float32(placed)
    half = [tensor for tensor in twin.graph.initializer if tensor.data_type == TensorProto.FLOAT16]
    assert half
    readers = {node.input[0]: node for node in twin.graph.node if node.op_type == "Cast"}
    assert all(readers[tensor.name].attribute[0].i == TensorProto.FLOAT for tensor in half)
    onnx.load_external_data_for_model(twin, str(tmp_path))
    feeds = ENTRIES["llama_dynamo18"].feeds(0, 1)
    expected, found = (run(open_session(each), feeds)["output0"] for each in (in_float32(model), twin))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
