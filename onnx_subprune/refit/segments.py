"""A network that is run piece by piece over all samples, so that weights further on may change in between.

Each call of `advance` runs the nodes that the wanted tensors still need, and no others, over all batches; what later
nodes read is kept until they have run. All calls together cost one inference, whatever their number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from onnx_subprune.model import open_session, run
from onnx_subprune.model.protos import bodies, graphs
from onnx_subprune.refit.store import Store

__all__ = ["Segments"]

Array = np.ndarray[Any, Any]


class Segments:
    """The nodes of a network in order, those that have run, and the tensors at the border between them.

    Args:
        model: its initializers may be replaced, in place, as long as no node that reads them has run.
        store: where tensors between two calls are kept.
        providers: execution providers, most wanted first.
        threads: intra-op threads of the runtime.

    """

    def __init__(
        self,
        model: onnx.ModelProto,
        store: Store,
        *,
        providers: Sequence[str] = ("cpu",),
        threads: int | None = None,
    ) -> None:
        self._model = model
        self._nodes = list(model.graph.node)
        self._reads = [_reads(node) for node in self._nodes]
        self._makers = {name: index for index, node in enumerate(self._nodes) for name in node.output if name}
        self._waiting = set(range(len(self._nodes)))
        self._batches = 0
        self._store = store
        self._run_on = (tuple(providers), threads)

    def feed(self, feeds: Mapping[str, Array]) -> None:
        """Add a batch of inputs, before anything has run."""
        for name, array in feeds.items():
            self._store.put(name, self._batches, array)
        self._batches += 1

    def has(self, name: str) -> bool:
        """Whether a tensor is at hand, or can still be computed."""
        return name in self._store or self._makers.get(name) in self._waiting

    def pending(self, wanted: Collection[str]) -> list[onnx.NodeProto]:
        """Return the nodes that have to run for these tensors, in order."""
        return [self._nodes[index] for index in self._needed(wanted)]

    def advance(self, wanted: Collection[str]) -> Iterator[dict[str, Array]]:
        """Yield the wanted tensors of one batch after the other; the nodes they need have run when all are through.

        Raises:
            ModelError: a node fails.

        """
        todo = self._needed(wanted)
        self._waiting.difference_update(todo)
        made = {name for index in todo for name in self._nodes[index].output if name}
        later = {name for index in self._waiting for name in self._reads[index]}
        fetched = sorted(made & (later | set(wanted)))
        session = self._session(todo, made, fetched) if fetched else None
        inputs = [] if session is None else [spec.name for spec in session.get_inputs()]
        for batch in range(self._batches):
            values: dict[str, Array] = {}
            if session is not None:
                values = run(session, {name: self._store.get(name, batch) for name in inputs}, fetched)
            for name in later & values.keys():
                self._store.put(name, batch, values[name])
            yield {name: values[name] if name in values else self._store.get(name, batch) for name in wanted}
        for name in self._store.names():
            if name not in later:
                self._store.drop(name)

    def _needed(self, wanted: Collection[str]) -> list[int]:
        """Return the nodes that still have to run, in order."""
        found: set[int] = set()
        queue = [name for name in wanted if name not in self._store]
        while queue:
            index = self._makers.get(queue.pop())
            if index is not None and index in self._waiting and index not in found:
                found.add(index)
                queue += [name for name in self._reads[index] if name not in self._store]
        return sorted(found)

    def _session(self, todo: Sequence[int], made: Collection[str], fetched: Sequence[str]) -> ort.InferenceSession:
        read = {name for index in todo for name in self._reads[index]}
        piece = onnx.ModelProto(ir_version=self._model.ir_version)
        piece.opset_import.extend(self._model.opset_import)
        piece.functions.extend(self._model.functions)
        graph = piece.graph
        graph.name = "segment"
        graph.node.extend(self._nodes[index] for index in todo)
        graph.initializer.extend(tensor for tensor in self._model.graph.initializer if tensor.name in read)
        graph.sparse_initializer.extend(
            tensor for tensor in self._model.graph.sparse_initializer if tensor.values.name in read
        )
        for name in sorted((read - set(made)) & set(self._store.names())):
            array = self._store.get(name, 0)
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * array.ndim))
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in fetched)
        providers, threads = self._run_on
        return open_session(piece, providers, threads=threads)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those that its bodies take from outside too."""
    names = set(node.input)
    for body in bodies(node):
        for graph in graphs(body):
            names.update(value.name for value in graph.output)
            for inner in graph.node:
                names.update(inner.input)
    names.discard("")
    return names
