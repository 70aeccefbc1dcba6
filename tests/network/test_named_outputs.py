"""Tensors that networks are compared at are outputs while a graph is edited, and none in what is written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune import Options, Target
from onnx_subprune.errors import OptionError, PlanError
from onnx_subprune.model import open_session, run
from onnx_subprune.model.compared_models import opened_for_comparison
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.named_outputs import drop_unread, opened, written
from onnx_subprune.network.verify import check_normalised, relative_error
from onnx_subprune.pipeline import apply, prune

DATA = np.random.default_rng(1).standard_normal((64, 3, 6, 6)).astype(np.float32)
BLOCK = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,3,6,6] x) => (float[N,5] y) {
    [stem] a = Conv<pads = [1,1,1,1]>(x, w1)
    [norm] b = BatchNormalization(a, scale, shift, mean, spread)
    c = Relu(b)
    [inner] d = Conv<pads = [1,1,1,1]>(c, w2)
    e = Relu(d)
    [outer] f = Conv<pads = [1,1,1,1]>(e, w3)
    s = Add(f, c)
    same = Identity(s)
    p = GlobalAveragePool(same)
    q = Flatten(p)
    [head] m = MatMul(q, w4)
    n = Add(m, b4)
    o = Relu(n)
    [last] y = MatMul(o, w5)
}"""
SHAPES = {
    "w1": (8, 3, 3, 3), "w2": (12, 8, 3, 3), "w3": (8, 12, 3, 3), "w4": (8, 10), "b4": (10,), "w5": (10, 5),
    "scale": (8,), "shift": (8,), "mean": (8,), "spread": (8,),
}  # fmt: skip


@pytest.fixture
def block() -> onnx.ModelProto:
    """Return a residual block between a stem whose BatchNormalization folds and a head with a bias of its own."""
    rng = np.random.default_rng(0)
    built = onnx.parser.parse_model(BLOCK)
    for name, shape in SHAPES.items():
        values = np.abs(rng.standard_normal(shape)) + 0.5 if name == "spread" else rng.standard_normal(shape) / 4
        built.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    return built


def value(model: onnx.ModelProto, name: str) -> np.ndarray:
    return run(open_session(opened_for_comparison(model, [name])), {"x": DATA})[name]


def pruned(model: onnx.ModelProto, *at: str, target: str = "macs=0.7", **options: object) -> onnx.ModelProto:
    chosen = Options(Target.parse(target), threads=1, rows=8, probes=4, outputs_at=at, **options)  # type: ignore[arg-type]
    return prune(model, {"x": DATA}, chosen).model


def test_they_are_outputs_of_the_graph_and_of_no_file(block: onnx.ModelProto) -> None:
    graph = opened(block, ["e", "y", "e"])
    assert [tensor.name for tensor in graph.outputs] == ["y", "e"]
    assert written(graph, block) == block
    assert [tensor.name for tensor in graph.outputs] == ["y"]


@pytest.mark.parametrize("name", ["a", "b", "c", "d", "f", "s", "same", "m", "n"])
def test_normalising_keeps_what_is_named(block: onnx.ModelProto, name: str) -> None:
    """Also what would be folded away: the output of a Conv before its BatchNormalization, that of an Identity."""
    analysis = analyse(block, outputs_at=[name])
    assert [output.name for output in analysis.normalised.graph.output] == ["y"]
    assert relative_error(value(analysis.normalised, name), value(block, name)) < 1e-5
    assert check_normalised(analysis, {"x": DATA[:2]}) >= 1e-3
    assert [point.tensor for point in analysis.comparisons.points] == [name]


def test_what_a_named_tensor_holds_stays_whole_and_what_it_cannot_show_as_well(block: onnx.ModelProto) -> None:
    assert [group.name for group in analyse(block).structure.prunable] == ["stem", "inner", "head"]
    structure = analyse(block, outputs_at=["s"]).structure
    assert [group.name for group in structure.prunable] == ["inner"]
    reasons = {group.name: group.reasons[0] for group in structure.frozen}
    assert reasons["stem"] == "networks are compared at 's'"
    assert reasons["head"] == "no tensor that networks are compared at depends on it"


@pytest.mark.parametrize("name", ["a", "d", "s", "m", "n", "y"])
@pytest.mark.parametrize("recovery", ["channel", "exact"])
def test_a_named_tensor_means_the_same_in_the_pruned_network(block: onnx.ModelProto, name: str, recovery: str) -> None:
    """Shifts go into biases, not behind the tensor: what is pruned in front of it is recovered in it."""
    if name == "a":
        with pytest.raises(OptionError, match="expected at least one prunable group, found none"):
            pruned(block, name)
        return
    result = pruned(block, name, target="units=0.75", recovery=recovery)
    assert [output.name for output in result.graph.output] == ["y"]
    dense, found = value(block, name), value(result, name)
    assert found.shape == dense.shape
    assert np.linalg.norm(found - dense) < 0.25 * np.linalg.norm(dense)
    assert abs((found - dense).mean()) < 0.02 * np.abs(dense).mean()


def test_a_plan_replays_with_the_tensors_it_was_made_with(block: onnx.ModelProto) -> None:
    options = Options(Target.parse("macs=0.8"), threads=1, rows=8, probes=4, outputs_at=("s",))
    result = prune(block, {"x": DATA}, options)
    again = apply(result.plan, block, {"x": DATA}, Options(threads=1))
    assert again.model.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)
    assert again.document()["compared_at"] == [{"tensor": "s", "outputs": (), "reason": "asked for"}]
    with pytest.raises(PlanError, match=r"expected group 'inner' with 12 units .* found it frozen \(networks are comp"):
        apply(result.plan, block, {"x": DATA}, Options(threads=1, outputs_at=("d",)))


def test_a_tensor_that_nobody_reads_any_more_goes_in_the_end(block: onnx.ModelProto) -> None:
    """The whole of 'inner' goes, and with it all that read the tensor."""
    gate = block.graph.node
    assert [node.name for node in gate][3] == "inner"
    drop_unread(block, ["e"])
    assert len(gate) == 14
    for node in list(gate):
        if node.name in ("outer",) or list(node.output) == ["s"]:
            gate.remove(node)
    gate.insert(5, onnx.helper.make_node("Identity", ["c"], ["s"]))
    drop_unread(block, ["e"])
    assert not {"d", "e"} & {name for node in gate for name in node.output}
    assert not {"w2"} & {tensor.name for tensor in block.graph.initializer}
    assert value(block, "y").shape == (64, 5)
