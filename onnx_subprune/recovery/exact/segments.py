"""A network that is run piece by piece over all samples, so that weights further on may change in between.

Each call of `advance` runs the nodes that the wanted tensors still need, and no others, over all batches; what later
nodes read is kept until they have run. All calls together cost one inference, whatever their number. Two kinds of node
run again where their outputs are read again: those that compute with constants alone, and those that make what cannot
be kept (sequences, types that NumPy does not know).

A network may be *given* tensors of another one, batch by batch, in the place of those that it would make.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from onnx_subprune.errors import ModelError
from onnx_subprune.model import given_names, open_session, run
from onnx_subprune.model.pieces import constant_nodes, reads
from onnx_subprune.recovery.exact.activation_store import Store

__all__ = ["Segments"]

Array = np.ndarray[Any, Any]

_NOT_KEPT = ("tensor(bfloat16)", "tensor(float8", "tensor(int4", "tensor(uint4", "tensor(int2", "tensor(uint2")


class Segments:
    """The nodes of a network in order, those that have run, and the tensors at the border between them.

    Args:
        model: its initializers may be replaced, in place, as long as no node that reads them has run.
        store: where tensors between two calls are kept.
        providers: execution providers, most wanted first.
        threads: intra-op threads of the runtime.
        given: names of tensors that are given from outside, as far as the network makes them.

    """

    def __init__(
        self,
        model: onnx.ModelProto,
        store: Store,
        *,
        providers: Sequence[str] = ("cpu",),
        threads: int | None = None,
        given: Collection[str] = (),
    ) -> None:
        self._model = model
        self._nodes = list(model.graph.node)
        self._reads = [reads(node) for node in self._nodes]
        self._makers = {name: index for index, node in enumerate(self._nodes) for name in node.output if name}
        self._again = constant_nodes(self._nodes, self._reads, given_names(model))
        self._waiting = set(range(len(self._nodes))) - self._again
        self._given = {name: self._makers.pop(name) for name in given if name in self._makers}
        # A node that is left with nothing to give does not run.
        self._waiting -= set(self._given.values()) - set(self._makers.values())
        self._asked: Counter[str] = Counter()
        self._batches = 0
        self._store = store
        self._run_on = (tuple(providers), threads)

    def feed(self, feeds: Mapping[str, Array]) -> None:
        """Add a batch of inputs, before anything has run."""
        for name, array in feeds.items():
            self._store.put(name, self._batches, array)
        self._batches += 1

    def expect(self, names: Iterable[str]) -> None:
        """Say that these tensors will be asked for, as often as they are named: they are kept until then."""
        self._asked.update(names)

    def has(self, name: str) -> bool:
        """Whether a tensor is at hand, can still be computed, or will be given."""
        return name in self._store or name in self._given or self._makers.get(name) in self._waiting | self._again

    def lacking(self, wanted: Collection[str]) -> list[str]:
        """Return the tensors that have to be given before `advance` can be asked for these, in order."""
        read = {name for index in self._pending_nodes(wanted) for name in self._reads[index]}
        return [name for name in self._given if name in read.union(wanted) and name not in self._store]

    def give(self, values: Mapping[str, Any], batch: int, restrict: Callable[[str, Array], Array]) -> None:
        """Take tensors of another network for one batch, cut down as `restrict` does by name.

        What no array holds (a sequence) the network makes itself after all.
        """
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self._store.put(name, batch, restrict(name, value))
            elif name in self._given:
                self._makers[name] = self._given.pop(name)
                self._waiting.add(self._makers[name])

    def pending(self, wanted: Collection[str]) -> list[onnx.NodeProto]:
        """Return the nodes that have to run for these tensors, in order."""
        return [self._nodes[index] for index in self._pending_nodes(wanted)]

    def advance(self, wanted: Collection[str]) -> Iterator[dict[str, Array]]:
        """Yield the wanted tensors of one batch after the other; the nodes they need have run when all are through.

        What cannot be kept is left out.

        Raises:
            ModelError: a node fails.

        """
        wanted = tuple(dict.fromkeys(wanted))
        todo = self._pending_nodes(wanted)
        self._waiting.difference_update(todo)
        self._asked -= Counter(wanted)
        session, fetched = self._open_session(todo, wanted)
        inputs = [] if session is None else [spec.name for spec in session.get_inputs()]
        later = self._names_to_keep()
        for batch in range(self._batches):
            values: dict[str, Array] = {}
            if session is not None:
                values = run(session, {name: self._store.get(name, batch) for name in inputs}, fetched)
            for name in later & values.keys():
                self._store.put(name, batch, values[name])
            held = values.keys() | set(self._store.names())
            yield {n: values[n] if n in values else self._store.get(n, batch) for n in wanted if n in held}
        for name in self._store.names():
            if name not in later:
                self._store.drop(name)

    def _pending_nodes(self, wanted: Collection[str]) -> list[int]:
        """Return the nodes that still have to run, in order."""
        needed: set[int] = set()
        queue = [name for name in wanted if name not in self._store]
        while queue:
            index = self._makers.get(queue.pop())
            if index is not None and index not in needed and (index in self._waiting or index in self._again):
                needed.add(index)
                queue += [name for name in self._reads[index] if name not in self._store]
        return sorted(needed)

    def _names_to_keep(self) -> set[str]:
        """Return the tensors to keep: those asked for, and those read by nodes that are to run, or to run again."""
        queue = [*self._asked, *(name for index in self._waiting for name in self._reads[index])]
        kept: set[str] = set()
        while queue:
            name = queue.pop()
            if name not in kept:
                kept.add(name)
                index = self._makers.get(name)
                queue += self._reads[index] if index in self._again and index is not None else ()
        return kept - {name for index in self._again for name in self._nodes[index].output}

    def _open_session(
        self, todo: Sequence[int], wanted: Collection[str]
    ) -> tuple[ort.InferenceSession | None, list[str]]:
        """Return a session of nodes and its outputs; take note of nodes that make tensors which cannot be kept."""
        outputs = {name for index in todo for name in self._nodes[index].output if name and name not in self._given}
        while fetched := sorted(outputs & (self._names_to_keep() | set(wanted))):
            session = self._session(todo, outputs, fetched)
            lost = {self._makers[value.name] for value in session.get_outputs() if not _is_kept(value.type)}
            if not lost - self._again:
                return session, fetched
            self._again |= lost
        return None, []

    def _session(self, todo: Sequence[int], outputs: Collection[str], fetched: Sequence[str]) -> ort.InferenceSession:
        read = {name for index in todo for name in self._reads[index]}
        piece = onnx.ModelProto(ir_version=self._model.ir_version)
        piece.opset_import.extend(self._model.opset_import)
        piece.functions.extend(self._model.functions)
        graph = piece.graph
        graph.name = "segment"
        graph.node.extend(self._nodes[index] for index in todo)
        for node in graph.node if self._given else ():
            node.output[:] = [f"{name}.undecided" if name in self._given else name for name in node.output]
        graph.initializer.extend(tensor for tensor in self._model.graph.initializer if tensor.name in read)
        graph.sparse_initializer.extend(
            tensor for tensor in self._model.graph.sparse_initializer if tensor.values.name in read
        )
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in fetched)
        read_before = sorted((read - set(outputs)) & set(self._store.names()))
        # Known sizes matter: of a shape that is computed, the runtime must know how many axes it has.
        graph.input.extend(self._value_info(name, sized=True) for name in read_before)
        providers, threads = self._run_on
        try:
            return open_session(piece, providers, threads=threads)
        except ModelError:
            # And they contradict a branch that is not taken for tensors of such sizes.
            del graph.input[:]
            graph.input.extend(self._value_info(name, sized=False) for name in read_before)
            return open_session(piece, providers, threads=threads)

    def _value_info(self, name: str, *, sized: bool) -> onnx.ValueInfoProto:
        dtype, sizes = self._store.kind(name)
        kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        return onnx.helper.make_tensor_value_info(name, kind, [size if sized else None for size in sizes])


def _is_kept(kind: str) -> bool:
    return kind.startswith("tensor(") and not kind.startswith(_NOT_KEPT)
