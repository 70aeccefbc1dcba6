"""The weight of a consumer as [blocks, outputs, inputs, kernel taps], whatever the operator."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from onnx_subprune.structure.records import Consumer
from onnx_subprune.structure.weight_layout import Layout

__all__ = ["as_blocks", "from_blocks"]

Array = NDArray[Any]


def as_blocks(consumer: Consumer, view: Array) -> Array:
    """Return a consumer's weight, as its node sees it, as [blocks, outputs, inputs, kernel taps].

    Args:
        consumer: the linear map.
        view: the weight in the layout of the node (`Weight.view`).

    """
    return _layout(consumer).split(view)


def from_blocks(consumer: Consumer, blocks: Array) -> Array:
    """Return a consumer's weight in the layout of its node: the inverse of `as_blocks`.

    Args:
        consumer: the linear map.
        blocks: [blocks, outputs, inputs, kernel taps].

    """
    shape = [int(consumer.weight.constant.shape[axis]) for axis in consumer.weight.perm]
    return _layout(consumer).join(blocks, shape)


def _layout(consumer: Consumer) -> Layout:
    return Layout(consumer.kind, consumer.contracted_view, max(1, consumer.blocks.size))
