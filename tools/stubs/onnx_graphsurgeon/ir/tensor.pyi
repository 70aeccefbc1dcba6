from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx_graphsurgeon.ir.node import Node

# A size, the name of a size, or nothing known.
_Shape: TypeAlias = Sequence[int | str | None]

class Tensor:
    name: str
    inputs: list[Node]
    outputs: list[Node]
    @property
    def shape(self) -> _Shape | None: ...
    @property
    def dtype(self) -> np.dtype[Any] | None: ...
    def is_empty(self) -> bool: ...
    def to_constant(
        self,
        values: NDArray[Any] | LazyValues,
        data_location: int | None = None,
        export_dtype: DTypeLike | int | None = None,
    ) -> Constant: ...
    def to_variable(self, dtype: DTypeLike | int | None = None, shape: _Shape | None = ...) -> Variable: ...
    def i(self, tensor_idx: int = 0, producer_idx: int = 0) -> Tensor: ...
    def o(self, consumer_idx: int = 0, tensor_idx: int = 0) -> Tensor: ...

class Variable(Tensor):
    shape: _Shape | None
    type: str
    # `to_graph` leaves no element types of ONNX's; whatever is written is taken as it is.
    @property
    def dtype(self) -> np.dtype[Any] | None: ...
    @dtype.setter
    def dtype(self, dtype: DTypeLike | int | None) -> None: ...
    def __init__(
        self, name: str, dtype: DTypeLike | int | None = None, shape: _Shape | None = None, type: str = "tensor_type"
    ) -> None: ...
    @staticmethod
    def empty() -> Variable: ...
    def copy(self) -> Variable: ...

class LazyValues:
    tensor: onnx.TensorProto | onnx.SparseTensorProto
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nbytes: int
    def __init__(self, tensor: onnx.TensorProto | onnx.SparseTensorProto) -> None: ...
    def load(self) -> NDArray[Any]: ...

class Constant(Tensor):
    _export_dtype: DTypeLike | int | None
    data_location: int | None
    _values: NDArray[Any] | LazyValues
    def __init__(
        self,
        name: str,
        values: NDArray[Any] | LazyValues,
        data_location: int | None = None,
        export_dtype: DTypeLike | int | None = None,
    ) -> None: ...
    @property
    def values(self) -> NDArray[Any]: ...
    @values.setter
    def values(self, values: NDArray[Any] | LazyValues) -> None: ...
    # An element type of ONNX's where NumPy has none.
    @property
    def export_dtype(self) -> np.dtype[Any] | int: ...
    @export_dtype.setter
    def export_dtype(self, dtype: DTypeLike | int | None) -> None: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def copy(self) -> Constant: ...
