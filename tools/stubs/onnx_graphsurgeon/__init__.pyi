# What this package uses of GraphSurgeon, which ships no types. A private name stands here where the code needs it.
import onnx
from onnx_graphsurgeon.ir.function import Function as Function
from onnx_graphsurgeon.ir.graph import Graph as Graph
from onnx_graphsurgeon.ir.node import Node as Node
from onnx_graphsurgeon.ir.tensor import Constant as Constant
from onnx_graphsurgeon.ir.tensor import Tensor as Tensor
from onnx_graphsurgeon.ir.tensor import Variable as Variable

__version__: str

class OnnxGraphSurgeonException(Exception): ...

def import_onnx(onnx_model: onnx.ModelProto) -> Graph: ...
def export_onnx(graph: Graph, do_type_check: bool = True) -> onnx.ModelProto: ...
