"""What a network costs that its structure does not know: bodies, and nodes that were not understood.

Nothing of it can be pruned, but it is part of the whole that a target is a share of.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnx_subprune.errors import ModelError
from onnx_subprune.model import node_macs, parameter_count
from onnx_subprune.model.products import needed_tensors
from onnx_subprune.model.protos import bodies, graphs
from onnx_subprune.structure import MacTerm, Structure, fresh

__all__ = ["with_fixed_costs"]


def with_fixed_costs(
    structure: Structure,
    model: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]],
    sample: Mapping[str, np.ndarray],
) -> Structure:
    """Return the structure with all MACs and parameters of its network.

    Args:
        structure: as it was inferred; nothing has been asked of it yet.
        model: the network.
        shapes: the size of every input.
        sample: inputs of those shapes, whose values may steer sizes.

    """
    _count_macs(structure, model, shapes, sample)
    macs = structure.macs_touched({})
    groups = tuple(replace(group, macs=macs.get(group.atom, 0)) for group in structure.groups)
    return replace(structure, groups=groups, fixed_parameters=parameter_count(model) - structure.parameters({}))


def _count_macs(
    structure: Structure,
    model: onnx.ModelProto,
    shapes: Mapping[str, Sequence[int]],
    sample: Mapping[str, np.ndarray],
) -> None:
    """Enter the MACs of nodes that have none so far, and of those whose sizes are only known at run time."""
    terms = structure.records.mac_terms
    counted: dict[str, int] = {}
    for term in terms:
        name = term.node.outputs[0].name
        counted[name] = counted.get(name, 0) + math.prod(dim.size for dim in term.factors)
    unknown = {node.output[0] for node in model.graph.node if _sums_products(node)} - counted.keys()
    if not unknown and not _has_open_sizes(structure):
        return
    try:
        measured = node_macs(model, shapes, sample)
    except ModelError:
        # Whoever asks for the cost of the network is told why it cannot be counted.
        return
    for place, term in enumerate(terms):
        macs, name = counted[term.node.outputs[0].name], term.node.outputs[0].name
        times, rest = divmod(measured.get(name, macs), macs) if macs else (1, 0)
        if times > 1 and not rest:
            terms[place] = replace(term, factors=(*term.factors, fresh(times)))
    for node in structure.graph.nodes:
        name = node.outputs[0].name if node.outputs else ""
        if name in unknown and name in measured:
            structure.records.add(MacTerm(node, (fresh(measured[name]),)))


def _has_open_sizes(structure: Structure) -> bool:
    """Whether MACs depend on sizes of run time that are not those of the inputs, and count as 1 so far."""
    axes = structure.records.axes
    given = {atom for tensor in structure.graph.inputs for dim in axes.get(tensor.name, ()) for atom in dim.atoms()}
    return any(
        atom.dynamic and atom not in given
        for term in structure.records.mac_terms
        for dim in term.factors
        for atom in dim.atoms()
    )


def _sums_products(node: onnx.NodeProto) -> bool:
    inner = (each for body in bodies(node) for graph in graphs(body) for each in graph.node)
    return any(needed_tensors(each) for each in (node, *inner))
