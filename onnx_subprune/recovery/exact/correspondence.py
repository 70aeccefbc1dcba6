"""Who reads what in a pruned network, and what its tensors stand for in the network that it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import onnx

from onnx_subprune.recovery.exact.downstream import adds_behind, limits_of, reader_of
from onnx_subprune.recovery.exact.linear_layers import Linear
from onnx_subprune.recovery.exact.shortcuts import Shortcut, find_shortcut
from onnx_subprune.recovery.exact.weight_views import count_reads
from onnx_subprune.structure.position_weights import is_normalised
from onnx_subprune.subspace.clipped_regression import Limits

__all__ = ["Surroundings", "counterparts"]


class Surroundings:
    """Who reads what in a pruned network.

    Args:
        pruned: the network.
        dense: what it was.

    """

    def __init__(self, pruned: onnx.ModelProto, dense: onnx.ModelProto) -> None:
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in pruned.graph.node:
            for name in set(node.input):
                self._readers.setdefault(name, []).append(node)
        self._reads = count_reads(pruned)
        self._constants = {tensor.name: tensor for tensor in pruned.graph.initializer}
        self._counterparts = counterparts(pruned, dense)

    def counterpart(self, name: str) -> str:
        """Return the name of the dense tensor that a tensor stands for."""
        return self._counterparts.get(name, name)

    def shortcut(self, linear: Linear) -> Shortcut | None:
        """Return what the output of a layer is added to."""
        return find_shortcut(linear, self._readers, self._reads, self._constants)

    def shifted(self, linear: Linear) -> str | None:
        """Return the first sum behind a layer that stands for another tensor: an operand holds a branch's constant."""
        sums = adds_behind(linear.output, self._readers, self._reads)
        return next((name for name in sums if self.counterpart(name) != name), None)

    def limits(self, linear: Linear, shortcut: Shortcut | None) -> Limits | None:
        """Return what the output of a layer, or the sum that it ends up in, is clipped to by all that read it."""
        name = linear.output if shortcut is None else shortcut.total
        readers = self._readers.get(name, ())
        # An output of the network, and a body that reads it, are no nodes.
        plain = shortcut is None or (shortcut.scale is None and not shortcut.shifted)
        if not plain or self._reads[name] != len(readers):
            return None
        limits = {limits_of(node, name, self._constants) for node in readers}
        return limits.pop() if len(limits) == 1 else None

    def normalised(self, linear: Linear, shortcut: Shortcut | None, rank: int) -> bool:
        """Whether a normalisation reads the output of a layer, of `rank` axes, or the sum that it ends up in."""
        name = linear.output if shortcut is None else shortcut.total
        return is_normalised(
            name, rank, lambda read: (reader_of(node, self._constants) for node in self._readers.get(read, ()))
        )


def counterparts(pruned: onnx.ModelProto, dense: onnx.ModelProto) -> dict[str, str]:
    """Return for tensors of a pruned network the dense tensors that they stand for, where these are named otherwise.

    Where a branch was dropped, what remains of a sum takes the place of the sum: a tensor is what its readers take it
    for. Of several, which differ by zeros, it is the first.
    """
    read_as: dict[str, set[str]] = {}
    dense_nodes, pruned_nodes = _by_name(dense.graph.node), _by_name(pruned.graph.node)
    for key in dense_nodes.keys() & pruned_nodes.keys():
        for name, before in zip(pruned_nodes[key].input, dense_nodes[key].input, strict=False):
            read_as.setdefault(name, set()).add(before)
    outputs = {value.name for value in pruned.graph.output}
    computed = {name for node in pruned.graph.node for name in node.output}
    known = [value.name for value in dense.graph.input] + [name for node in dense.graph.node for name in node.output]
    order = {name: index for index, name in enumerate(known)}
    return {
        name: min(wanted & order.keys(), key=order.__getitem__)
        for name, wanted in read_as.items()
        if name in computed and name not in wanted | outputs and wanted & order.keys()
    }


def _by_name(nodes: Sequence[onnx.NodeProto]) -> Mapping[tuple[str, str], onnx.NodeProto]:
    """Return the nodes whose name is theirs alone, by name and operator; inputs may have been added at the end."""
    names = Counter(node.name for node in nodes)
    return {(n.name, f"{n.domain}:{n.op_type}"): n for n in nodes if n.name and names[n.name] == 1}
