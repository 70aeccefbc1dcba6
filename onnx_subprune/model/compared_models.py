"""Networks as they are opened for a comparison: other outputs, decisions that are given, draws that are the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias
from zlib import crc32

import onnx

from onnx_subprune.model.branch_ends import branch_ends, show_branch_ends
from onnx_subprune.model.protos import graphs
from onnx_subprune.model.session import open_session

__all__ = [
    "RANDOM",
    "comparable_tensors",
    "known_sizes",
    "opened_for_comparison",
    "restore_draws",
    "seeded",
    "sized_otherwise",
]

RANDOM = (
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
)
"""Operators that draw numbers."""

Sizes: TypeAlias = Sequence[int | str | None]

# Seeds are stored as float32, which holds all integers up to here.
_SEEDS = 1 << 24


def opened_for_comparison(
    model: onnx.ModelProto, outputs: Sequence[str], decisions: Mapping[str, int] | None = None
) -> onnx.ModelProto:
    """Return the network with other outputs, decisions as inputs, and random operators that draw alike everywhere.

    A random operator is given a seed by the name of its output, so that networks with the same random operators draw
    the same numbers. Where nothing changes the model itself is returned, otherwise a copy.

    Args:
        model: the network.
        outputs: names of its `comparable_tensors`, to be outputs in the place of its own.
        decisions: element types by the names of tensors that are to be inputs.

    """
    unchanged = not decisions and list(outputs) == [value.name for value in model.graph.output]
    if unchanged and not any(node.op_type in RANDOM for node in _all_nodes(model)):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if {end.tensor for end in branch_ends(graph).values()}.intersection(outputs):
        show_branch_ends(graph)
    _take(graph, decisions or {})
    known = {value.name: value for value in (*model.graph.output, *model.graph.input)}
    del graph.output[:]
    graph.output.extend(known.get(name, onnx.ValueInfoProto(name=name)) for name in outputs)
    _seed_draws(result)
    return result


def comparable_tensors(model: onnx.ModelProto) -> frozenset[str]:
    """Return the tensors at which a network can be opened: what its nodes make, and what its branches saturate.

    Args:
        model: the network.

    """
    made = {name for node in model.graph.node for name in node.output if name}
    return frozenset(made | {end.tensor for end in branch_ends(model.graph).values()})


def known_sizes(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, Sizes]:
    """Return the sizes of tensors as far as they are known without a run: symbols for the others.

    Args:
        model: the network.
        names: of its tensors.

    """
    if not names:
        return {}
    opened = opened_for_comparison(model, list(names))
    outputs = open_session(opened, optimise=False).get_outputs()
    return {value.name: tuple(value.shape) for value in outputs if value.type.startswith("tensor(")}


def sized_otherwise(sizes: Mapping[str, Sizes], other: onnx.ModelProto) -> frozenset[str]:
    """Return those of the tensors that are of another size in another network, whatever it reads.

    A decision about every unit (a Round, the positions of a MaxPool, the largest of each channel) is of as many units
    as are left: what one network decides cannot be given to the other.

    Args:
        sizes: of tensors in a network, as `known_sizes` returns them.
        other: the other network.

    """
    names = {name for node in other.graph.node for name in node.output}
    wide = [name for name in sizes if name in names and any(isinstance(size, int) and size > 1 for size in sizes[name])]
    return frozenset(name for name, found in known_sizes(other, wide).items() if _differ(sizes[name], found))


def _differ(sizes: Sizes, others: Sizes) -> bool:
    pairs = zip(sizes, others, strict=False)
    return any(isinstance(size, int) and isinstance(other, int) and size != other for size, other in pairs)


def seeded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose random operators draw the same numbers in every session; the model itself if it has none."""
    if not any(node.op_type in RANDOM for node in _all_nodes(model)):
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _seed_draws(result)
    return result


def _seed_draws(model: onnx.ModelProto) -> None:
    """Give every random operator of a network a seed that follows from the name of its output, in place."""
    for node in _all_nodes(model):
        if node.op_type in RANDOM:
            _set_seed(node, float(crc32(node.output[0].encode()) % _SEEDS + 1))


def restore_draws(model: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Give the random operators of a network the seeds, or none, that they have in another, in place."""
    seeds = {
        node.output[0]: next((float(each.f) for each in node.attribute if each.name == "seed"), None)
        for node in _all_nodes(original)
        if node.op_type in RANDOM
    }
    for node in _all_nodes(model):
        if node.op_type in RANDOM:
            _set_seed(node, seeds.get(node.output[0]))


def _set_seed(node: onnx.NodeProto, seed: float | None) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name != "seed"]
    del node.attribute[:]
    node.attribute.extend(kept if seed is None else [*kept, onnx.helper.make_attribute("seed", seed)])


def _take(graph: onnx.GraphProto, decisions: Mapping[str, int]) -> None:
    """Let a graph take decisions as inputs that its nodes make; these make them under another name."""
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name in decisions:
                node.output[place] = f"{name}.undecided"
                graph.input.append(onnx.helper.make_tensor_value_info(name, decisions[name], None))
    infos = [value for value in graph.value_info if value.name not in decisions]
    del graph.value_info[:]
    graph.value_info.extend(infos)


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    return (node for graph in graphs(model.graph) for node in graph.node)
