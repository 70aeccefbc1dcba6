"""Sizes of tensors inside the bodies of If, Loop and Scan, seen in one run: a row of sizes for every time a body ran.

ONNX's shape inference says little about bodies, and nothing about how often one runs. So a copy of the model hands the
shapes out: a body has one more output for each tensor that is asked for, its node passes these on, and a loop stacks
them along its iterations. In an If the branch that is not taken hands out a filler.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.errors import UserError
from onnx_subprune.model.forced_branches import with_branches_taken
from onnx_subprune.model.protos import ONNX_DOMAINS, bodies
from onnx_subprune.model.session import open_session, run

__all__ = ["BodyShapes", "body_key", "body_shapes", "is_loop", "shapes_of_all_branches"]

Shape = tuple[int, ...]
BodyShapes = Mapping[str, Sequence[Mapping[str, Shape]]]
"""By the key of a body (`body_key`), for every time it ran the shapes of the tensors asked for, by name."""

_LOOPS = ("Loop", "Scan")
# More axes than any operator takes.
_AXES = 8
_NO_AXIS, _NOT_RUN = -1, -2
_FIRST_SCAN_WITHOUT_BATCH = 9
_SECONDS = 60.0
# Each branch that was not taken takes a run of its own.
_MOST_RUNS = 8


def is_loop(node: onnx.NodeProto) -> bool:
    """Whether a node runs its body as often as it takes."""
    return node.op_type in _LOOPS and node.domain in ONNX_DOMAINS


def body_key(key: str, node: onnx.NodeProto, place: int) -> str:
    """Return the key of a body.

    Args:
        key: of the graph that the node stands in; empty for the main graph.
        node: that holds the body.
        place: of the body among those of the node.

    """
    return f"{key}{node.output[0]}/{place}/"


def body_shapes(
    model: onnx.ModelProto,
    feeds: Mapping[str, NDArray[Any]],
    needed: Callable[[onnx.NodeProto], Sequence[str]],
) -> BodyShapes:
    """Run a model once and return the shapes of tensors in its bodies; bodies that did not run are not listed.

    Args:
        model: as it is; it is not changed.
        feeds: an array for each input, by name.
        needed: the names of the tensors that are asked for, of a node of a body.

    Raises:
        DataError: the feeds do not fit the inputs.
        ModelError: the model fails on them, or takes longer than a minute.

    """
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    opset = max((entry.version for entry in probe.opset_import if entry.domain in ONNX_DOMAINS), default=1)
    handed_out = list(_Instrument(needed, opset).enter(probe.graph, ""))
    probe.graph.output.extend(_int_info(sizes.name) for sizes in handed_out)
    if not handed_out:
        return {}
    values = run(open_session(probe, optimise=False), feeds, seconds=_SECONDS)
    return _rows(handed_out, values)


def shapes_of_all_branches(
    model: onnx.ModelProto,
    feeds: Mapping[str, NDArray[Any]],
    needed: Callable[[onnx.NodeProto], Sequence[str]],
) -> BodyShapes:
    """Return `body_shapes`, and those of the branches that were not taken as far as they run when they are.

    Args:
        model: as it is; it is not changed.
        feeds: an array for each input, by name.
        needed: the names of the tensors that are asked for, of a node of a body.

    Raises:
        DataError, ModelError: see `body_shapes`.

    """
    seen = dict(body_shapes(model, feeds, needed))
    runs = 0
    for key, taken in _branches_asked(model.graph, "", {}, needed):
        if key in seen or runs == _MOST_RUNS:
            continue
        runs += 1
        with contextlib.suppress(UserError):
            seen = {**body_shapes(with_branches_taken(model, taken), feeds, needed), **seen}
    return seen


def _branches_asked(
    graph: onnx.GraphProto,
    key: str,
    outer: Mapping[str, bool],
    needed: Callable[[onnx.NodeProto], Sequence[str]],
) -> Iterator[tuple[str, dict[str, bool]]]:
    """Yield the keys of branches that are asked about and no loop repeats, and with them which Ifs lead there."""
    for node in graph.node:
        branches = [each for each in node.attribute if each.HasField("g")] if node.op_type == "If" else []
        for place, attribute in enumerate(branches):
            own, taken = body_key(key, node, place), {**outer, node.output[0]: attribute.name == "then_branch"}
            if any(needed(each) for each in attribute.g.node):
                yield own, taken
            yield from _branches_asked(attribute.g, own, taken, needed)


@dataclass(frozen=True)
class _Sizes:
    """A tensor `name` that holds the sizes of `tensor` in the body `key`, stacked along so many `loops`."""

    name: str
    key: str
    tensor: str
    loops: int = 0


def _rows(handed_out: Sequence[_Sizes], values: Mapping[str, NDArray[np.int64]]) -> dict[str, list[dict[str, Shape]]]:
    """Sort the sizes that were handed out by body and by run."""
    rows: dict[str, list[dict[str, Shape]]] = {}
    for sizes in handed_out:
        ran = [row for row in values[sizes.name].reshape(-1, _AXES).tolist() if _NOT_RUN not in row]
        runs = rows.setdefault(sizes.key, [{} for _ in ran])
        for shapes, row in zip(runs, ran, strict=True):
            shapes[sizes.tensor] = tuple(size for size in row if size != _NO_AXIS)
    return {key: runs for key, runs in rows.items() if runs}


class _Instrument:
    """Lets the bodies of a graph hand out shapes, in place."""

    def __init__(self, needed: Callable[[onnx.NodeProto], Sequence[str]], opset: int) -> None:
        self._needed = needed
        self._opset = opset

    def enter(self, graph: onnx.GraphProto, key: str) -> Iterator[_Sizes]:
        """Yield the tensors of a graph that hold shapes now."""
        wanted = [name for node in graph.node for name in self._needed(node)] if key else []
        for node in list(graph.node):
            if node.op_type == "If":
                yield from self._branches(node, key)
            elif is_loop(node) and (node.op_type == "Loop" or self._opset >= _FIRST_SCAN_WITHOUT_BATCH):
                yield from self._loop(node, key)
        for name in dict.fromkeys(wanted):
            yield _Sizes(_shape_nodes(graph, name, f"{key}{name}"), key, name)

    def _branches(self, node: onnx.NodeProto, key: str) -> Iterator[_Sizes]:
        graphs = list(bodies(node))
        inner = [list(self.enter(graph, body_key(key, node, place))) for place, graph in enumerate(graphs)]
        for place, graph in enumerate(graphs):
            for source, handed_out in enumerate(inner):
                for sizes in handed_out:
                    own = sizes.name if source == place else _filler(graph, f"{sizes.name}~", sizes.loops)
                    graph.output.append(_int_info(own))
        for sizes in (sizes for handed_out in inner for sizes in handed_out):
            node.output.append(f"{sizes.name}^")
            yield replace(sizes, name=node.output[-1])

    def _loop(self, node: onnx.NodeProto, key: str) -> Iterator[_Sizes]:
        body = next(bodies(node))
        carried = 1 if node.op_type == "Loop" else 0
        node.output.extend("" for _ in range(len(body.output) - carried - len(node.output)))
        for sizes in list(self.enter(body, body_key(key, node, 0))):
            body.output.append(_int_info(sizes.name))
            node.output.append(f"{sizes.name}^")
            for attribute in node.attribute:
                if attribute.name in ("scan_output_axes", "scan_output_directions"):
                    attribute.ints.append(0)
            yield replace(sizes, name=node.output[-1], loops=sizes.loops + 1)


def _int_info(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)


def _shape_nodes(graph: onnx.GraphProto, name: str, output: str) -> str:
    """Add nodes that give the shape of a tensor with -1 behind it, as many entries for all."""
    bounds = {"rest": [_NO_AXIS] * _AXES, "start": [0], "end": [_AXES]}
    for suffix, value in bounds.items():
        graph.node.append(_constant(f"{output}~{suffix}", np.array(value, np.int64)))
    graph.node.append(onnx.helper.make_node("Shape", [name], [f"{output}~shape"]))
    graph.node.append(
        onnx.helper.make_node("Concat", [f"{output}~shape", f"{output}~rest"], [f"{output}~long"], axis=0)
    )
    sliced = [f"{output}~{part}" for part in ("long", "start", "end")]
    graph.node.append(onnx.helper.make_node("Slice", sliced, [output]))
    return output


def _filler(graph: onnx.GraphProto, output: str, loops: int) -> str:
    graph.node.append(_constant(output, np.full((1,) * loops + (_AXES,), _NOT_RUN, np.int64)))
    return output


def _constant(name: str, value: NDArray[np.int64]) -> onnx.NodeProto:
    return onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(value))
