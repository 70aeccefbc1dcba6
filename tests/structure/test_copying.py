"""A structure can be copied: the copy has a graph of its own, and knows as much."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_subprune.model import to_graph, to_model
from onnx_subprune.network.analysis import analyse
from onnx_subprune.passes import GiveBiases, MaskConsumers
from onnx_subprune.structure import Structure, infer
from onnx_subprune.structure.copying import GraphCopy

Net = Callable[..., onnx.ModelProto]


def _chain(net: Net) -> onnx.ModelProto:
    return net(
        """g (float[2,3,5,5] x) => (float[2,4,5,5] y) {
            [c1] h = Conv(x, w1, b1)
            r = Relu(h)
            [c2] y = Conv(r, w2)
        }""",
        w1=(8, 3, 1, 1), b1=(8,), w2=(4, 8, 1, 1),
    )  # fmt: skip


def _wiring(graph: gs.Graph) -> list[tuple[object, ...]]:
    return [
        (
            node.op, node.name, dict(node.attrs), node.domain,
            [(t.name, [reader.name for reader in t.outputs]) for t in node.inputs],
            [(t.name, t.shape, [reader.name for reader in t.outputs]) for t in node.outputs],
        )
        for node in graph.nodes
    ]  # fmt: skip


def _objects(graph: gs.Graph) -> set[int]:
    """Return the identities of all nodes and tensors, those of bodies too."""
    parts = [graph, *graph.subgraphs(recursive=True)]
    nodes = [node for part in parts for node in part.nodes]
    tensors = [tensor for node in nodes for tensor in (*node.inputs, *node.outputs)]
    ends = [tensor for part in parts for tensor in (*part.inputs, *part.outputs)]
    return {id(one) for one in (*parts, *nodes, *tensors, *ends)}


def test_the_copy_has_the_same_wiring_and_no_object_in_common(net: Net) -> None:
    structure = analyse(_chain(net)).structure
    copy = structure.copy()
    assert _wiring(copy.graph) == _wiring(structure.graph)
    assert _objects(copy.graph).isdisjoint(_objects(structure.graph))


def test_values_of_constants_are_shared_and_stay_lazy(net: Net) -> None:
    structure = infer(to_graph(_chain(net)), {"x": (2, 3, 5, 5)})
    copy = structure.copy()
    for node, same in zip(structure.graph.nodes, copy.graph.nodes, strict=True):
        for tensor, twin in zip(node.inputs, same.inputs, strict=True):
            if isinstance(tensor, gs.Constant):
                assert twin._values is tensor._values
                assert not isinstance(twin._values, np.ndarray)


def test_records_of_the_copy_point_into_its_graph(net: Net) -> None:
    structure = analyse(_chain(net)).structure
    copy = structure.copy()
    nodes = {id(node) for node in copy.graph.nodes}
    known = copy.records
    assert all(id(use.node) in nodes for use in (*known.uses, *known.consumers, *known.mac_terms))
    assert all(consumer in copy.consumers for group in copy.groups for consumer in group.consumers)
    assert [group.name for group in copy.groups] == [group.name for group in structure.groups]
    assert [group.atom for group in copy.groups] == [group.atom for group in structure.groups]
    assert all(group.removable == same.removable for group, same in zip(structure.groups, copy.groups, strict=True))


def test_edits_of_the_copy_leave_the_original_alone(net: Net) -> None:
    analysis = analyse(_chain(net))
    structure = analysis.structure

    def state(structure: Structure) -> tuple[object, ...]:
        model = to_model(structure.graph, analysis.normalised)
        return model.SerializeToString(deterministic=True), sorted(structure.records.axes), structure.macs({})

    before, copy = state(structure), structure.copy()
    keeps = {copy.groups[0].atom: np.arange(8) < 5}
    GiveBiases(copy, copy.consumers)(copy.graph)
    MaskConsumers(copy, keeps)(copy.graph)
    copy.graph.nodes[0].attrs["dilations"] = [7, 7]
    copy.branches.close()
    assert state(copy) != before
    assert state(structure) == before
    reason = structure.removal(["c1"]).reason
    assert reason is not None
    assert "graph output" in reason


def test_deep_graphs_are_copied_without_recursion() -> None:
    tensor = first = gs.Variable("x0", np.float32, (1,))
    nodes = []
    for index in range(5000):
        tensor, source = gs.Variable(f"x{index + 1}", np.float32, (1,)), tensor
        nodes.append(gs.Node("Relu", f"n{index}", inputs=[source], outputs=[tensor]))
    copy = GraphCopy(gs.Graph(nodes, [first], [tensor])).graph
    assert [node.name for node in copy.nodes] == [node.name for node in nodes]
    assert copy.inputs[0].outputs[0] is copy.nodes[0]


def test_bodies_share_the_tensors_of_the_copied_graph_around_them() -> None:
    outer, inner = gs.Variable("a", np.float32, (1,)), gs.Variable("b", np.float32, (1,))
    body = gs.Graph([gs.Node("Relu", "in", inputs=[outer], outputs=[inner])], outputs=[inner], name="body")
    condition, result = gs.Constant("c", np.array(True)), gs.Variable("y", np.float32, (1,))
    branches = {"then_branch": body, "else_branch": body}
    made = gs.Node("If", "if", branches, [condition], [result])
    graph = gs.Graph([gs.Node("Abs", "abs", inputs=[gs.Variable("x")], outputs=[outer]), made], outputs=[result])
    copy = GraphCopy(graph).graph
    held = copy.nodes[1].attrs["then_branch"]
    assert held is not body
    assert held.nodes[0].inputs[0] is copy.nodes[0].outputs[0]
    assert [reader.name for reader in copy.nodes[0].outputs[0].outputs] == [reader.name for reader in outer.outputs]
