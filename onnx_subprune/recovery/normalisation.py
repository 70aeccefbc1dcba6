"""From the statistics of normalisations that lose units to what gives them back: see docs/mathematics.md, section 8."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from onnx_subprune.calibration import Gram
from onnx_subprune.structure import Atom, Features, Normalisation, Structure, keep_mask, normalised_features
from onnx_subprune.subspace import Moments, Reader, Rescaling, rescaling, unscaled

__all__ = ["normalisation_readers", "rescalings"]

Keeps: TypeAlias = Mapping[Atom, np.ndarray]


def rescalings(
    structure: Structure, keeps: Keeps, grams: Mapping[Normalisation, Gram]
) -> tuple[dict[Normalisation, Rescaling], list[str]]:
    """Return the factor and offset of every normalisation that loses units, and a line for each that gets none.

    Args:
        structure: of the graph.
        keeps: for each Atom that loses units, bool [size].
        grams: of the tensors of the normalisations.

    """
    found: dict[Normalisation, Rescaling] = {}
    for one, gram in grams.items():
        features = normalised_features(structure, one)
        keep = features.kept(keeps)[0]
        if keep.any() and not keep.all():
            found[one] = _rescaling(structure, one, features, gram, keep)
    left = [
        f"the statistics of {one.kind} at '{one.node.name}' were not restored: {one.unrestored}"
        for one in structure.records.normalisations
        if one.unrestored is not None and keep_mask(one.dim, keeps).any() and not keep_mask(one.dim, keeps).all()
    ]
    return {one: value for one, value in found.items() if not value.trivial}, left


def normalisation_readers(
    structure: Structure, grams: Mapping[Normalisation, Gram], samples: int
) -> dict[Normalisation, Reader]:
    """Return every normalisation as a reader of its axis: what makes up the spread must not go unseen.

    A channel that a normalisation scales down hardly matters to those who read the result, and still it may be most of
    what everything else is divided by. What counts is its share of the sum of squares, whether or not others explain it
    linearly: a sum of squares over those that stay lacks it all the same.

    Args:
        structure: of the graph.
        grams: of the tensors of the normalisations.
        samples: how many the Grams were taken on.

    """
    readers = {}
    for one, gram in grams.items():
        features = normalised_features(structure, one)
        second, _ = _moments(structure, one, features, gram)
        squares = np.diagonal(second)
        readers[one] = Reader(
            features,
            partial(np.ones, (1, 1, features.count)),
            Moments(partial(_diagonal, squares)),
            partial(np.asarray, squares[np.newaxis]),
            gram.count / samples,
            corrected=False,
        )
    return readers


def _diagonal(squares: np.ndarray) -> np.ndarray:
    return np.diag(squares)[np.newaxis]


def _moments(structure: Structure, one: Normalisation, features: Features, gram: Gram) -> tuple[np.ndarray, np.ndarray]:
    """Return E[n nᵀ] and E[n] of the normalised values n, before an operator's own scale and shift."""
    affine = gram.second_moment()[0]
    second, mean = affine[:-1, :-1], affine[:-1, -1]
    scale, shift = (_parameter(structure, one, index, features) for index in (one.scale, one.shift))
    if scale is None:
        return second, mean
    return unscaled(second, mean, scale, np.zeros_like(scale) if shift is None else shift)


def _rescaling(structure: Structure, one: Normalisation, features: Features, gram: Gram, keep: np.ndarray) -> Rescaling:
    second, mean = _moments(structure, one, features, gram)
    pooled = one.pooled or features.inner * features.outer > 1
    return rescaling(second, mean, keep, centred=one.centred, averaged=one.averaged, pooled=pooled)


def _parameter(structure: Structure, one: Normalisation, index: int | None, features: Features) -> np.ndarray | None:
    """Return an operator's parameter where it has one value for each feature."""
    dims = None if index is None else structure.records.own_axes(one.node, index)
    if (
        index is None
        or dims is None
        or len(dims) != 1
        or dims[0].resolve() != one.dim.resolve()
        or features.count != one.dim.size
    ):
        return None
    return np.asarray(one.node.inputs[index].values).astype(np.float64)
