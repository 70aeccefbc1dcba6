"""Statistics over an axis that may shrink: which nodes take them, and which normalisation they are for.

A normalisation n = (x - mean) / spread takes its statistics over the units that are there. Once units are removed it
takes them over those that stay: another network, but a well-defined one, and the oracle computes it from the dense one.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Dim

__all__ = ["NORMALISED_OPTION", "Normalisation", "Spread", "Statistic"]

NORMALISED_OPTION = "--prune-normalised"
"""What lets such an axis shrink; the reason of one that is frozen names it."""


@dataclass(frozen=True, eq=False)
class Statistic:
    """A node that runs over axes (position, Dim) of its first input, once pruned over the units that stay."""

    node: gs.Node
    axes: tuple[tuple[int, Dim], ...]


@dataclass(frozen=True, eq=False)
class Spread:
    """The output of `node` is the spread (`root`, `norm`) or one over it (`inverse`), a value per position."""

    node: gs.Node
    inverse: bool


@dataclass(frozen=True, eq=False)
class Normalisation:
    """The values of `tensor` along its axis `axis` (the Dim `dim`) are normalised.

    Attributes:
        node: what stands for it in messages: the operator, or the node that takes the spread.
        kind: such as LayerNormalization or RMSNorm.
        tensor: holds the normalised values; where `scale` and `shift` are given, after these were applied.
        axis: the normalised axis of the tensor.
        dim: its Dim.
        centred: whether the mean is subtracted.
        averaged: whether the spread is taken from a mean of squares, not a sum.
        pooled: whether the statistics run over other axes too.
        scale: the input of `node` with a factor for each entry, if it has one.
        shift: the input of `node` with a summand for each entry, if it has one.
        spread: where to correct the spread, for a normalisation written out; None for an operator.
        unrestored: why the statistics cannot be put right once units are gone; None where they can.

    """

    node: gs.Node
    kind: str
    tensor: str
    axis: int
    dim: Dim
    centred: bool
    averaged: bool = True
    pooled: bool = False
    scale: int | None = None
    shift: int | None = None
    spread: Spread | None = None
    unrestored: str | None = None
