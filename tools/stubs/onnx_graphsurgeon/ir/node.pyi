from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from onnx_graphsurgeon.ir.graph import Graph
from onnx_graphsurgeon.ir.tensor import Tensor, Variable

class Node:
    op: str
    name: str
    # Which attribute has which type is said by the operator's schema alone.
    attrs: dict[str, Any]
    inputs: list[Tensor]
    # A constant has no producer: `to_graph` lowers the nodes that hold one.
    outputs: list[Variable]
    domain: str | None
    def __init__(
        self,
        op: str,
        name: str | None = None,
        attrs: Mapping[str, object] | None = None,
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Variable] | None = None,
        domain: str | None = None,
    ) -> None: ...
    def i(self, tensor_idx: int = 0, producer_idx: int = 0) -> Node: ...
    def o(self, consumer_idx: int = 0, tensor_idx: int = 0) -> Node: ...
    def subgraphs(self, recursive: bool = False) -> Iterator[Graph]: ...
    def copy(
        self,
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Variable] | None = None,
        tensor_map: dict[str, Tensor] | None = None,
    ) -> Node: ...
