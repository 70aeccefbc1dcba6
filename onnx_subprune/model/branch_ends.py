"""What the branches of an If give before it saturates.

Where a branch ends in a Sigmoid, a Softmax, a Tanh or a comparison, the output of its If says little about how close
two networks are (`model.saturation`), and the tensor before it is in a body, where a network cannot be opened. An If
with one more output shows it: in each branch what saturates there, in a branch that does not saturate what it gives.
It holds the values of the branch that is taken, so that no other branch runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnx_subprune.model.protos import ONNX_DOMAINS, bodies
from onnx_subprune.model.saturation import Replaced, before_saturation

__all__ = ["BranchEnd", "branch_ends", "show_branch_ends"]

_Makers = Mapping[str, onnx.NodeProto]


@dataclass(frozen=True)
class BranchEnd:
    """One more output of an If.

    Attributes:
        tensor: its name, which no file has.
        sources: the tensor that each branch gives there, in the order of the node's bodies.
        reason: why networks are compared there.

    """

    tensor: str
    sources: tuple[str, ...]
    reason: str


def branch_ends(graph: onnx.GraphProto) -> dict[str, BranchEnd]:
    """Return the ends of the Ifs of a graph whose branches saturate, by the output that each stands for.

    A branch may end in an If itself. An If is left out where a branch joins several tensors that saturate.

    Args:
        graph: the main graph of a network.

    """
    return {output: end for owner, output, end in _ends(graph, {}, {}) if owner is graph}


def show_branch_ends(graph: onnx.GraphProto) -> None:
    """Give the Ifs of a graph, and those within them, the outputs that `branch_ends` names, as float32; in place."""
    for owner, output, end in list(_ends(graph, {}, {})):
        node = next(node for node in owner.node if output in node.output)
        for place, (body, source) in enumerate(zip(bodies(node), end.sources, strict=True)):
            given = f"{end.tensor}/{place}"
            # One type for all branches, and a node for what comes from outside: a body gives what it makes.
            body.node.append(onnx.helper.make_node("Cast", [source], [given], to=onnx.TensorProto.FLOAT))
            body.output.append(onnx.helper.make_tensor_value_info(given, onnx.TensorProto.FLOAT, None))
        node.output.append(end.tensor)


def _ends(graph: onnx.GraphProto, makers: _Makers, known: Replaced) -> Iterator[tuple[onnx.GraphProto, str, BranchEnd]]:
    """Yield the ends in a graph and in the branches of its Ifs, inner ones first, each with the graph of its If."""
    makers = {**makers, **_makers(graph)}
    replaced = dict(known)
    for node in graph.node:
        if node.op_type != "If" or node.domain not in ONNX_DOMAINS:
            continue
        within: list[Replaced] = []
        for body in bodies(node):
            inner = list(_ends(body, makers, replaced))
            yield from inner
            own = {output: (end.tensor, end.reason) for owner, output, end in inner if owner is body}
            within.append({**replaced, **own})
        for place, output in enumerate(node.output):
            end = _end(node, place, makers, within) if output else None
            if end is not None:
                replaced[output] = (end.tensor, end.reason)
                yield graph, output, end


def _end(node: onnx.NodeProto, place: int, makers: _Makers, within: Sequence[Replaced]) -> BranchEnd | None:
    """Return the end for one output of an If; `within` says what stands for the Ifs of each branch."""
    sources: list[str] = []
    reasons: list[str] = []
    for body, replaced in zip(bodies(node), within, strict=True):
        seen, given = {**makers, **_makers(body)}, body.output[place].name
        varying = {name for name, maker in seen.items() if maker.op_type != "Constant"}
        before = before_saturation(given, seen, varying, replaced) or {given: ""}
        if len(before) > 1:
            return None
        sources += before
        reasons += filter(None, before.values())
    return BranchEnd(f"{node.output[place]}/in_branch", tuple(sources), reasons[0]) if reasons else None


def _makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output if name}
