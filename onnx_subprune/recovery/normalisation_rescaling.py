"""From the statistics of normalisations that lose units to what gives them back: see docs/mathematics.md, section 8."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TypeAlias

import numpy as np

from onnx_subprune.calibration import Gram
from onnx_subprune.passes.wiring import stored_input
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
    restored: dict[Normalisation, Rescaling] = {}
    for normalisation, gram in grams.items():
        features = normalised_features(structure, normalisation)
        keep = features.kept(keeps)[0]
        if _loses(keep):
            restored[normalisation] = _rescaling(structure, normalisation, features, gram, keep)
    lines = [
        f"the statistics of {unrestored.kind} at '{unrestored.node.name}' were not restored: {unrestored.unrestored}"
        for unrestored in structure.records.normalisations
        if unrestored.unrestored is not None and _loses(keep_mask(unrestored.dim, keeps))
    ]
    return {normalisation: value for normalisation, value in restored.items() if not value.trivial}, lines


def _loses(keep: np.ndarray) -> bool:
    """Whether some units go, and some stay."""
    return bool(keep.any() and not keep.all())


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
    for normalisation, gram in grams.items():
        features = normalised_features(structure, normalisation)
        second, _ = _moments(structure, normalisation, features, gram)
        squares = np.diagonal(second)
        readers[normalisation] = Reader(
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


def _moments(
    structure: Structure, normalisation: Normalisation, features: Features, gram: Gram
) -> tuple[np.ndarray, np.ndarray]:
    """Return E[n nᵀ] and E[n] of the normalised values n, before an operator's own scale and shift."""
    affine = gram.second_moment()[0]
    second, mean = affine[:-1, :-1], affine[:-1, -1]
    places = (normalisation.scale, normalisation.shift)
    scale, shift = (_parameter(structure, normalisation, index, features) for index in places)
    if scale is None:
        return second, mean
    return unscaled(second, mean, scale, np.zeros_like(scale) if shift is None else shift)


def _rescaling(
    structure: Structure, normalisation: Normalisation, features: Features, gram: Gram, keep: np.ndarray
) -> Rescaling:
    second, mean = _moments(structure, normalisation, features, gram)
    pooled = normalisation.pooled or features.inner * features.outer > 1
    return rescaling(second, mean, keep, centred=normalisation.centred, averaged=normalisation.averaged, pooled=pooled)


def _parameter(
    structure: Structure, normalisation: Normalisation, index: int | None, features: Features
) -> np.ndarray | None:
    """Return an operator's parameter where it has one value for each feature."""
    dims = None if index is None else structure.records.own_axes(normalisation.node, index)
    if (
        index is None
        or dims is None
        or len(dims) != 1
        or dims[0].resolve() != normalisation.dim.resolve()
        or features.count != normalisation.dim.size
    ):
        return None
    return np.asarray(stored_input(normalisation.node, index).values).astype(np.float64)
