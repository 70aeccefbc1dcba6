"""Where a weight lies, and how its axes are laid out: one account, for graphs that are read and models that are run.

A node reads a stored weight at once, or through a chain of Identity, Transpose and Cast. The chain is followed here for
any kind of graph: the caller says which tensors are stored and which node hands a tensor on. Whatever the operator, a
weight is then seen in one layout, [blocks, outputs, inputs, kernel taps].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PASSED_THROUGH",
    "Chain",
    "Layout",
    "Link",
    "contracted_axis",
    "follow",
    "unfused",
]

Array = NDArray[Any]
TensorT = TypeVar("TensorT")

PASSED_THROUGH = ("Identity", "Transpose", "Cast")
"""Operators through which a stored weight stays one."""

_UNFUSED = {
    "DeformConv": "Conv",
    "FusedConv": "Conv",
    "FusedGemm": "Gemm",
    "FusedMatMul": "MatMul",
    "NhwcConv": "Conv",
    "NhwcFusedConv": "Conv",
    "TransposeMatMul": "MatMul",
}
# The axis of their weights that is contracted, whatever the attributes.
_CONTRACTED = {"Conv": 1, "ConvTranspose": 0, "LSTM": 2, "GRU": 2, "RNN": 2}


def unfused(operator: str) -> str:
    """Return the operator that another one does more than, with a weight laid out alike; any other operator itself.

    >>> unfused("FusedConv"), unfused("LSTM")
    ('Conv', 'LSTM')
    """
    return _UNFUSED.get(operator, operator)


def contracted_axis(operator: str, rank: int, *, index: int = 1, transposed: bool = False) -> int:
    """Return the axis of a weight, as its node sees it, that the node sums over.

    Args:
        operator: of the node.
        rank: number of axes of the weight.
        index: which input of a matrix product the weight is.
        transposed: whether the product transposes it (`transA` of the first operand, `transB` of the second).

    >>> contracted_axis("Conv", 4), contracted_axis("MatMul", 2), contracted_axis("Gemm", 2, transposed=True)
    (1, 0, 1)

    """
    fixed = _CONTRACTED.get(unfused(operator))
    if fixed is not None:
        return fixed
    last = transposed if index == 1 else not transposed
    return rank - (1 if last else 2)


@dataclass(frozen=True)
class Link(Generic[TensorT]):
    """A node that hands a weight on.

    Attributes:
        source: the tensor that it reads.
        operator: one of `PASSED_THROUGH`.
        perm: of a Transpose; None reverses the axes.
        dtype: element type (`TensorProto.DataType`) that a Cast gives.

    """

    source: TensorT
    operator: str
    perm: Sequence[int] | None = None
    dtype: int = 0


@dataclass(frozen=True)
class Chain(Generic[TensorT]):
    """The way from a stored tensor to a node: the links, the one nearest to the tensor first."""

    stored: TensorT
    links: tuple[Link[TensorT], ...]

    def perm(self, rank: int) -> tuple[int, ...]:
        """Return the axes of the stored tensor, which has `rank`, in the order that the node sees."""
        order = tuple(range(rank))
        for link in self.links:
            if link.operator == "Transpose":
                order = order[::-1] if link.perm is None else tuple(order[axis] for axis in link.perm)
        return order

    @property
    def dtypes(self) -> tuple[int, ...]:
        """The element types that the weight is cast to on the way, in order."""
        return tuple(link.dtype for link in self.links if link.operator == "Cast")


def follow(
    tensor: TensorT, is_stored: Callable[[TensorT], bool], link_to: Callable[[TensorT], Link[TensorT] | None]
) -> Chain[TensorT] | None:
    """Follow a node's input back to the tensor that is stored.

    Args:
        tensor: what the node reads.
        is_stored: whether a tensor is a stored constant.
        link_to: returns the node that makes a tensor of another one and only hands it on; None for any other.

    Returns:
        The chain, or None where the input is computed.

    >>> made = {"turned": Link("w", "Transpose", (1, 0)), "half": Link("turned", "Cast", dtype=10)}
    >>> chain = follow("half", {"w"}.__contains__, made.get)
    >>> chain.stored, chain.perm(2), chain.dtypes
    ('w', (1, 0), (10,))
    >>> follow("x", {"w"}.__contains__, made.get) is None
    True

    """
    links: list[Link[TensorT]] = []
    while not is_stored(tensor):
        link = link_to(tensor)
        if link is None:
            return None
        links.append(link)
        tensor = link.source
    return Chain(tensor, tuple(reversed(links)))


@dataclass(frozen=True)
class Layout:
    """How the axes of a weight lie, as its node sees them.

    Attributes:
        operator: of the node, fused or not.
        contracted: the axis that is summed over.
        groups: blocks that are summed over apart: the groups of a Conv, the matrices of a stack.

    """

    operator: str
    contracted: int
    groups: int = 1

    def split(self, view: Array) -> Array:
        """Return a weight as [groups, outputs per group, inputs per group, kernel taps].

        >>> Layout("Conv", 1, groups=2).split(np.zeros((6, 4, 3, 3))).shape
        (2, 3, 4, 9)
        >>> Layout("MatMul", 0).split(np.zeros((4, 6))).shape
        (1, 6, 4, 1)
        """
        operator = unfused(self.operator)
        if operator in ("Conv", "ConvTranspose"):
            taps = math.prod(view.shape[2:])
            split = view.reshape(self.groups, view.shape[0] // self.groups, view.shape[1], taps)
            return split if operator == "Conv" else split.transpose(0, 2, 1, 3)
        matrices = np.moveaxis(view, self.contracted, -1)
        return matrices.reshape(self.groups, -1, matrices.shape[-1], 1)

    def join(self, blocks: Array, shape: Sequence[int]) -> Array:
        """Undo `split`, for a weight of this shape."""
        operator = unfused(self.operator)
        if operator == "Conv":
            return blocks.reshape(shape)
        if operator == "ConvTranspose":
            return blocks.transpose(0, 2, 1, 3).reshape(shape)
        axis = self.contracted
        matrices = blocks.reshape(*shape[:axis], *shape[axis + 1 :], shape[axis])
        return np.moveaxis(matrices, -1, axis)
