"""The weight of a consumer in one layout, whatever its operator: [blocks, outputs, inputs, kernel taps]."""

from __future__ import annotations

import math

import numpy as np

from onnx_subprune.structure.records import Consumer

__all__ = ["as_blocks", "from_blocks"]


def as_blocks(consumer: Consumer, view: np.ndarray) -> np.ndarray:
    """Return a weight, as its node sees it, as [blocks, outputs per block, inputs per block, kernel taps]."""
    groups = max(1, consumer.blocks.size)
    op = consumer.kind
    if op == "Conv":
        return view.reshape(groups, view.shape[0] // groups, view.shape[1], math.prod(view.shape[2:]))
    if op == "ConvTranspose":
        split = view.reshape(groups, view.shape[0] // groups, view.shape[1], math.prod(view.shape[2:]))
        return split.transpose(0, 2, 1, 3)
    matrices = np.moveaxis(view, consumer.contracted_view, -1)
    return matrices.reshape(groups, -1, matrices.shape[-1], 1)


def from_blocks(consumer: Consumer, blocks: np.ndarray) -> np.ndarray:
    """Undo `as_blocks`."""
    shape = tuple(consumer.weight.constant.shape[i] for i in consumer.weight.perm)
    op = consumer.kind
    if op == "Conv":
        return blocks.reshape(shape)
    if op == "ConvTranspose":
        return blocks.transpose(0, 2, 1, 3).reshape(shape)
    contracted = consumer.contracted_view
    matrices = blocks.reshape(*shape[:contracted], *shape[contracted + 1 :], shape[contracted])
    return np.moveaxis(matrices, -1, contracted)
