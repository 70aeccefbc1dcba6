from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import DataError, InternalError, OptionError
from onnx_subprune.evaluate import NodeTime, Profile, profile, runtime_profile

CPU = "CPUExecutionProvider"

CONVOLUTION = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 8, 8] x) => (float[N, 16, 8, 8] y) {
        c = Conv <pads = [1, 1, 1, 1]> (x, w)
        y = Relu(c)
    }
"""

# Four turns of a loop, whose body is the only work.
LOOP = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[192, 192] x) => (float[192, 192] y) <int64 turns = {4}> {
        y = Loop(turns, , x) <body = b (int64 i, bool before, float[192, 192] h) => (bool more, float[192, 192] out) {
            more = Identity(before)
            out = MatMul(h, h)
        }>
    }
"""


def convolution() -> onnx.ModelProto:
    model = onnx.parser.parse_model(CONVOLUTION)
    weight = np.random.default_rng(0).standard_normal((16, 3, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    for node in model.graph.node:
        node.name = f"my/{node.op_type}"
    return model


FEEDS = {"x": np.ones((2, 3, 8, 8), np.float32)}


def test_nodes_are_those_after_fusion_with_what_they_read_and_gave():
    found = profile(convolution(), FEEDS, threads=1, runs=4, warmup=1)
    assert found.runs == 4
    assert found.providers == (CPU,)
    assert "Relu" not in {node.operator for node in found.nodes}
    conv = next(node for node in found.nodes if "Conv" in node.operator)
    assert conv.provider == CPU
    assert conv.input_shapes[0] == (2, 3, 8, 8)
    assert conv.output_shapes == ((2, 16, 8, 8),)
    assert 0 < found.node_seconds == sum(node.seconds for node in found.nodes) <= found.seconds
    assert found.fallen == ()


def test_operators_are_the_nodes_summed_the_longest_first():
    nodes = (
        NodeTime("a", "Conv", "CUDA", 2e-3),
        NodeTime("b", "Add", CPU, 4e-3),
        NodeTime("c", "Conv", "CUDA", 1e-3),
        NodeTime("d", "Conv", CPU, 5e-4),
    )
    found = Profile(nodes, 1e-2, 2.5e-3, 1, ("CUDA", CPU))
    rows = [(time.operator, time.provider, time.nodes, round(time.seconds, 6)) for time in found.operators]
    assert rows == [("Add", CPU, 1, 4e-3), ("Conv", "CUDA", 2, 3e-3), ("Conv", CPU, 1, 5e-4)]
    assert [node.name for node in found.fallen] == ["b", "d"]


def test_a_body_is_not_counted_twice():
    found = profile(onnx.parser.parse_model(LOOP), {"x": np.eye(192, dtype=np.float32)}, threads=1, runs=4, warmup=1)
    seconds = {node.operator: node.seconds for node in found.nodes}
    assert {"Loop", "MatMul"} <= seconds.keys()
    assert seconds["MatMul"] > seconds["Loop"]
    assert found.node_seconds <= found.seconds


def event(name: str, start: int, length: int, thread: int = 1) -> dict[str, Any]:
    arguments = {"op_name": name, "provider": CPU}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": length, "tid": thread, "args": arguments}


def whole(start: int, length: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": start, "dur": length, "tid": 1, "args": {}}


def test_own_time_is_that_without_what_ran_inside_on_the_same_thread():
    events = [
        event("If", 0, 100),
        event("Loop", 10, 60),
        event("Add", 10, 20),
        event("Mul", 30, 40),
        event("Elsewhere", 20, 30, thread=2),
        event("Empty", 100, 0),
        event("After", 100, 5),
    ]
    assert runtime_profile._own_time(events) == [40, 0, 20, 40, 30, 0, 5]


def test_runs_for_warm_up_do_not_count_and_one_slow_run_does_not_either():
    events = []
    for number, length in enumerate((900, 10, 10, 800, 12)):
        events += [event("Add", 1000 * number + 1, length), whole(1000 * number, length + 2)]
    found = runtime_profile._profile_of_runs(events, 4, (CPU,))
    assert [(node.name, pytest.approx(11e-6)) for node in found.nodes] == [("Add", found.nodes[0].seconds)]
    assert found.seconds == pytest.approx(13e-6)
    assert found.seconds_between == pytest.approx(2e-6)


def test_a_profile_that_is_cut_off_is_no_profile():
    with pytest.raises(InternalError, match="3 runs expected"):
        runtime_profile._profile_of_runs([whole(0, 5), whole(10, 5)], 3, (CPU,))


def test_nothing_is_left_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    profile(convolution(), FEEDS, runs=1, warmup=0)
    with pytest.raises(DataError, match="do not fit"):
        profile(convolution(), {"x": np.ones((2, 3), np.float32)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"runs": 0}, {"warmup": -1}])
def test_no_runs_are_refused(options: dict[str, int]):
    with pytest.raises(OptionError, match="at least one run expected"):
        profile(convolution(), FEEDS, **options)
