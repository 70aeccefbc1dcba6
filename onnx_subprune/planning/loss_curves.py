"""From the statistics to a curve for every group: its readers, their weights, and the loss as units go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial, reduce

import numpy as np

from onnx_subprune import budget, subspace
from onnx_subprune.calibration import Gram, Statistics
from onnx_subprune.model import constant_values
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.tapped_features import normalisation_grams, pairs_of, readers_of, tap_of
from onnx_subprune.options import Options
from onnx_subprune.planning.default_widths import least_cuts, width_steps
from onnx_subprune.progress import Progress
from onnx_subprune.recovery.normalisation_rescaling import normalisation_readers
from onnx_subprune.structure import Consumer, Contraction, Features, Group, Structure, as_blocks
from onnx_subprune.subspace import Moments, Reader

__all__ = ["rank_groups"]


def rank_groups(
    analysis: Analysis,
    groups: Sequence[Group],
    statistics: Statistics,
    options: Options,
    *,
    progress: Progress | None = None,
) -> list[budget.Curve]:
    """Order the units of every group and draw the curve of variance they keep.

    Args:
        analysis: of the dense network.
        groups: that may be pruned.
        statistics: of all that reads them.
        options: the ordering, its seed, and the multiple of units that widths keep (`width_steps`).
        progress: called with the groups ranked and their number.

    """
    readers = _weighted(analysis.structure, statistics) | _multiplied(analysis.structure, statistics)
    spreads = normalisation_readers(
        analysis.structure, normalisation_grams(analysis.structure, statistics), statistics.samples
    )
    steps, cuts = width_steps(analysis, groups, options), least_cuts(analysis, groups, options)
    curves = []
    for index, group in enumerate(groups):
        if progress is not None:
            progress(index, len(groups))
        group_readers = [readers[consumer] for consumer in group.consumers]
        group_readers += [readers[contraction] for contraction in group.contractions]
        group_readers += [
            reader for normalisation, reader in spreads.items() if group.atom in normalisation.dim.atoms()
        ]
        ranking = subspace.rank_group(group, group_readers, options.select, options.seed + index, constant_values)
        for reader in group_readers:
            reader.moments.release()
        curves.append(
            budget.Curve(
                group.name,
                group.size,
                ranking.order,
                ranking.share,
                round_to=steps[group.name],
                loss=ranking.loss,
                least_cut=cuts[group.name],
            )
        )
    if progress is not None:
        progress(len(groups), len(groups))
    return curves


def _weighted(structure: Structure, statistics: Statistics) -> dict[Consumer | Contraction, Reader]:
    readers: dict[Consumer | Contraction, Reader] = {}
    moments: dict[tuple[str, bool], Moments] = {}
    for consumer, features in readers_of(structure).items():
        key, affine = tap_of(features).key, subspace.intercept_is_exact(consumer)
        gram = statistics.grams[key]
        if (key, affine) not in moments:
            # Units are judged by the moments that their recovery is fitted with: around the mean only where a bias
            # can take the mean over.
            moments[key, affine] = Moments(gram.covariance if affine else partial(_uncentred, gram), gram.count)
        readers[consumer] = Reader(
            features,
            partial(_rows, consumer, features),
            moments[key, affine],
            partial(_squares, gram),
            _applications(consumer, features) * gram.count / statistics.samples,
        )
    return readers


def _multiplied(structure: Structure, statistics: Statistics) -> dict[Consumer | Contraction, Reader]:
    """Return the products of two activations as readers: an error in a score counts once for each query."""
    readers: dict[Consumer | Contraction, Reader] = {}
    for pair, sides in pairs_of(structure).items():
        grams = [statistics.grams[tap_of(side).key] for side in sides]
        ones = partial(np.ones, (sides[0].blocks, 1, sides[0].count))
        readers[pair] = Reader(
            sides[0],
            ones,
            Moments(partial(_uncentred, *grams)),
            partial(_squares, *grams),
            grams[0].count / statistics.samples,
            corrected=False,
        )
    return readers


def _uncentred(*grams: Gram) -> np.ndarray:
    return np.asarray(reduce(np.multiply, (gram.matrix[:, :-1, :-1] / gram.weight for gram in grams)))


def _squares(*grams: Gram) -> np.ndarray:
    """Return the second moments of single features, multiplied over the Grams: [blocks, features]."""
    diagonals = (np.diagonal(gram.matrix, axis1=1, axis2=2)[:, :-1] / gram.weight[:, 0] for gram in grams)
    return np.asarray(reduce(np.multiply, diagonals))


def _applications(consumer: Consumer, features: Features) -> float:
    """Return how often, at one position of the input, each row of the weight adds to an output, times its scale².

    Positions of a flattened map are read once each, by rows of their own; a Conv with strides passes most inputs over.
    """
    attributes = consumer.node.attrs
    strides = attributes.get("strides", ()) if consumer.kind == "Conv" else ()
    scale = float(attributes.get("alpha", 1.0)) if consumer.kind in ("Gemm", "MatMul") else 1.0
    return scale**2 / (features.outer * features.inner * math.prod(strides))


def _rows(consumer: Consumer, features: Features) -> np.ndarray:
    """Return the consumer's weight with outputs, positions and taps as rows: [blocks, rows, features]."""
    blocks = as_blocks(consumer, consumer.weight.view(constant_values).astype(np.float64))
    split = blocks.reshape(features.blocks, blocks.shape[1], features.outer, features.count, -1)
    return np.moveaxis(split, 3, -1).reshape(features.blocks, -1, features.count)
