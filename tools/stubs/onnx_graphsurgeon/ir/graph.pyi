from collections.abc import Iterator, Sequence

import onnx
from onnx_graphsurgeon.ir.function import Function
from onnx_graphsurgeon.ir.node import Node
from onnx_graphsurgeon.ir.tensor import Tensor

class Graph:
    nodes: list[Node]
    inputs: list[Tensor]
    outputs: list[Tensor]
    name: str
    doc_string: str
    opset: int
    import_domains: Sequence[onnx.OperatorSetIdProto] | None
    functions: list[Function]
    producer_name: str
    producer_version: str
    ir_version: int | None
    name_idx: int
    def __init__(
        self,
        nodes: Sequence[Node] | None = None,
        inputs: Sequence[Tensor] | None = None,
        outputs: Sequence[Tensor] | None = None,
        name: str | None = None,
        doc_string: str | None = None,
        opset: int | None = None,
        import_domains: Sequence[onnx.OperatorSetIdProto] | None = None,
        producer_name: str | None = None,
        producer_version: str | None = None,
        functions: Sequence[Function] | None = None,
        ir_version: int | None = None,
    ) -> None: ...
    def tensors(self, check_duplicates: bool = False) -> dict[str, Tensor]: ...
    def subgraphs(self, recursive: bool = False) -> Iterator[Graph]: ...
    def cleanup(
        self,
        remove_unused_node_outputs: bool = False,
        recurse_subgraphs: bool = True,
        remove_unused_graph_inputs: bool = False,
        recurse_functions: bool = True,
    ) -> Graph: ...
    def toposort(self, recurse_subgraphs: bool = True, recurse_functions: bool = True, mode: str = "full") -> Graph: ...
    def copy(self, tensor_map: dict[str, Tensor] | None = None) -> Graph: ...
    def _local_tensors(self) -> dict[str, Tensor]: ...
    def _foreign_tensors(self) -> dict[str, Tensor]: ...
