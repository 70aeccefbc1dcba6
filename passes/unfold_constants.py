"""Write constants that are larger than what computes them as the nodes that compute them.

Constants are folded so that the structure can be read off them (`fold_constants`). A table of sines made of a Range, or
a mask made by a ConstantOfShape, takes a few bytes as nodes and megabytes as a constant. In a file it is nodes again,
with a Gather behind them where units have been removed from it; a constant whose values have changed stays one. ONNX
Runtime folds such nodes when it opens the file, as it did with the user's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnx_subprune.model import array_of
from onnx_subprune.model.protos import ONNX_DOMAINS, bodies, constant_tensor, graphs, is_external, tensor_bytes
from onnx_subprune.passes.fold_constants import NEVER

__all__ = ["unfold_constants"]

_logger = logging.getLogger(__name__)

_Arrays: TypeAlias = dict[str, NDArray[Any]]
_Thing = TypeVar("_Thing")
# What a node takes in a file, at the least: no smaller constant is worth one.
_SMALLEST = 32
# What `Shrink` writes behind the name of a constant that is cut in several ways.
_PRUNED = re.compile(r"_pruned(_\d+)?$")
_BEHIND_ALL = 1 << 60


def unfold_constants(model: onnx.ModelProto, original: onnx.ModelProto) -> int:
    """Put nodes in the place of constants that are larger, and return by how many bytes the model is smaller for it.

    Args:
        model: is changed; its constants have the names that they have in the original, or these with `_pruned` behind.
        original: as it was before anything was folded; functions inlined.

    """
    source, target = _Source(original), _Target(model)
    for tensor in target.candidates():
        whole = tensor.name if source.makes(tensor.name) else _PRUNED.sub("", tensor.name)
        chain = source.chain(whole, target.known - {whole})
        if chain is None or chain.bytes >= tensor_bytes(tensor):
            continue
        values = _evaluated(chain, target.values_of(chain.inputs), original)
        program = None if values is None else _program(chain, values, tensor)
        if program is not None and program.bytes < tensor_bytes(tensor) and target.has_room_for(program, tensor.name):
            target.accept(program, tensor.name)
    return target.write()


@dataclass(frozen=True)
class _Program:
    """What gives the tensor `name`: nodes in order, by their places in the original, stored tensors, and all values."""

    name: str
    nodes: Mapping[tuple[int, str], onnx.NodeProto]
    stored: Mapping[str, onnx.TensorProto]
    values: _Arrays = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What it takes in a file."""
        return sum(int(message.ByteSize()) for message in (*self.nodes.values(), *self.stored.values()))

    @property
    def outputs(self) -> list[str]:
        """The tensors that its nodes make."""
        return [name for node in self.nodes.values() for name in node.output if name]

    @property
    def inputs(self) -> set[str]:
        """The tensors that its nodes read."""
        return {name for node in self.nodes.values() for name in node.input if name}


class _Source:
    """The model as it was: what makes a tensor, and what is stored. A name that is used twice stands for nothing."""

    def __init__(self, model: onnx.ModelProto) -> None:
        held = list(graphs(model.graph))
        self._nodes = [node for graph in held for node in graph.node]
        self._makers = _unique((name, place) for place, node in enumerate(self._nodes) for name in node.output)
        given = {value.name for graph in held for value in graph.input}
        stored = _unique((tensor.name, tensor) for graph in held for tensor in graph.initializer)
        self._stored = {name: tensor for name, tensor in stored.items() if name not in given}

    def makes(self, name: str) -> bool:
        """Whether a node makes a tensor."""
        return name in self._makers

    def chain(self, name: str, known: Collection[str]) -> _Program | None:
        """Return what computes a tensor from stored ones and those that are known; None where nothing does."""
        nodes: dict[tuple[int, str], onnx.NodeProto] = {}
        stored: dict[str, onnx.TensorProto] = {}
        pending, seen = [name], {"", name}
        while pending:
            wanted = pending.pop()
            place = self._makers.get(wanted)
            if wanted in known:
                continue
            if place is not None and _is_computed(self._nodes[place]):
                nodes[place, ""] = self._nodes[place]
                pending += [read for read in self._nodes[place].input if read not in seen]
                seen.update(self._nodes[place].input)
            elif wanted != name and wanted in self._stored:
                stored[wanted] = self._stored[wanted]
            else:
                return None
        return _Program(name, dict(sorted(nodes.items())), stored)


class _Target:
    """A model whose constants become nodes; it is changed by `write` alone."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        given = {value.name for value in model.graph.input}
        self._initializers = {each.name: each for each in model.graph.initializer if each.name not in given}
        as_nodes = ((node.output[0], constant_tensor(node)) for node in model.graph.node if node.output)
        self._constants = {name: tensor for name, tensor in as_nodes if tensor is not None}
        self._taken = {name for graph in graphs(model.graph) for name in _names(graph)}
        self._accepted = _Program("", {}, {})
        self._gone: set[str] = set()

    def candidates(self) -> list[onnx.TensorProto]:
        """Return constants that nodes may take less room than, the largest first."""
        stored = self._initializers.values()
        large = [tensor for tensor in stored if tensor_bytes(tensor) > _SMALLEST and not is_external(tensor)]
        return sorted(large, key=tensor_bytes, reverse=True)

    @property
    def known(self) -> set[str]:
        """The tensors whose values are known: those that are stored, and those that nodes make now."""
        return {*self._initializers, *self._constants, *self._accepted.values}

    def values_of(self, names: Collection[str]) -> _Arrays:
        """Return the values of those that are known."""
        stored = {**self._constants, **self._initializers}
        values = {name: array_of(stored[name]) for name in sorted(stored.keys() & names)}
        return values | {name: value for name, value in self._accepted.values.items() if name in names}

    def has_room_for(self, program: _Program, replaced: str) -> bool:
        """Whether the names of all that is new are free."""
        return self._taken.isdisjoint({*program.outputs, *program.stored} - {replaced})

    def accept(self, program: _Program, replaced: str) -> None:
        """Let a program take the place of a constant."""
        before = self._accepted
        self._accepted = _Program(
            "",
            {**before.nodes, **program.nodes},
            {**before.stored, **program.stored},
            {**before.values, **program.values},
        )
        self._taken |= {*program.outputs, *program.stored}
        self._gone.add(replaced)

    def write(self) -> int:
        """Write all programs into the model, and return by how many bytes it is smaller."""
        if not self._gone:
            return 0
        graph, added = self._model.graph, self._accepted
        saved = sum(tensor_bytes(self._initializers[name]) for name in self._gone) - added.bytes
        initializers = [tensor for tensor in graph.initializer if tensor.name not in self._gone]
        read = [node for node in graph.node if node.output and node.output[0] in self._constants.keys() & added.inputs]
        others = [node for node in graph.node if not any(node is first for first in read)]
        nodes = [*read, *(node for _, node in sorted(added.nodes.items())), *others]
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend([*initializers, *added.stored.values()])
        graph.node.extend(nodes)
        _logger.info("%d constants are written as what computes them, which is %d bytes less", len(self._gone), saved)
        return saved


def _names(graph: onnx.GraphProto) -> Iterable[str]:
    yield from (value.name for value in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (name for node in graph.node for name in (*node.input, *node.output))


def _unique(pairs: Iterable[tuple[str, _Thing]]) -> dict[str, _Thing]:
    """Map names to things; a name that comes twice is left out."""
    things: dict[str, _Thing] = {}
    twice = {""}
    for name, thing in pairs:
        if name in things:
            twice.add(name)
        things[name] = thing
    return {name: thing for name, thing in things.items() if name not in twice}


def _is_computed(node: onnx.NodeProto) -> bool:
    return node.domain in ONNX_DOMAINS and node.op_type not in NEVER and not any(bodies(node))


def _evaluated(chain: _Program, read: _Arrays, original: onnx.ModelProto) -> _Arrays | None:
    """Return all that nodes make by ONNX's reference implementation; None where it fails."""
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in read.items()]
    outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in chain.outputs]
    stored = [*constants, *chain.stored.values()]
    graph = onnx.helper.make_graph(list(chain.nodes.values()), "chain", [], outputs, stored)
    try:
        evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=original.opset_import))
        with np.errstate(all="ignore"):
            return dict(zip(chain.outputs, evaluator.run(None, {}), strict=True))
    except Exception as error:  # any operator may fail in its own way; the constant then stays
        _logger.debug("what computes '%s' cannot be evaluated: %s", chain.name, error)
        return None


def _program(chain: _Program, values: _Arrays, tensor: onnx.TensorProto) -> _Program | None:
    """Return the nodes that give just what a constant holds; None where they compute other values."""
    held, whole = array_of(tensor), values[chain.name]
    if _same(whole, held):
        # Under another name it would be a second copy of the same nodes.
        return _Program(tensor.name, chain.nodes, chain.stored, values) if chain.name == tensor.name else None
    picked = _picked(whole, held)
    last = next(key for key, node in chain.nodes.items() if chain.name in node.output)
    if picked is None or len(chain.nodes[last].output) > 1:
        return None
    axis, entries = picked
    made, index = f"{tensor.name}_whole", f"{tensor.name}_kept"
    node = onnx.NodeProto()
    node.CopyFrom(chain.nodes[last])
    node.output[0] = made
    gather = onnx.helper.make_node("Gather", [made, index], [tensor.name], name=f"{tensor.name}_gather", axis=axis)
    nodes = {key: other for key, other in chain.nodes.items() if key != last}
    nodes |= {(last[0], tensor.name): node, (_BEHIND_ALL, tensor.name): gather}
    stored = {**chain.stored, index: onnx.numpy_helper.from_array(np.array(entries, np.int64), index)}
    others = {name: value for name, value in values.items() if name != chain.name}
    return _Program(tensor.name, nodes, stored, {**others, made: whole})


def _same(first: NDArray[Any], second: NDArray[Any]) -> bool:
    return (first.dtype, first.shape) == (second.dtype, second.shape) and first.tobytes() == second.tobytes()


def _picked(whole: NDArray[Any], held: NDArray[Any]) -> tuple[int, Sequence[int]] | None:
    """Return the axis of an array along which entries have gone, and those that are left; None where more was done."""
    if whole.dtype != held.dtype or whole.ndim != held.ndim:
        return None
    shorter = [axis for axis, sizes in enumerate(zip(whole.shape, held.shape, strict=True)) if sizes[0] != sizes[1]]
    if len(shorter) != 1:
        return None
    axis = shorter[0]
    places: dict[bytes, list[int]] = {}
    for place, entry in enumerate(np.moveaxis(whole, axis, 0)):
        places.setdefault(entry.tobytes(), []).append(place)
    entries = [places.get(entry.tobytes(), [-1])[0] for entry in np.moveaxis(held, axis, 0)]
    return None if -1 in entries else (axis, entries)
