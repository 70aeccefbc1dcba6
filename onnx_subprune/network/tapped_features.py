"""Where statistics are taken: one tap for each layout in which the prunable groups of a network are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.calibration import Gram, Statistics, Tap, few_rows
from onnx_subprune.errors import DataError
from onnx_subprune.structure import (
    Consumer,
    Contraction,
    Features,
    Group,
    Normalisation,
    Structure,
    features_of,
    normalised_features,
    sides_of,
)

__all__ = [
    "few_row_warnings",
    "grams_of",
    "normalisation_grams",
    "pairs_of",
    "reached_groups",
    "readers_of",
    "tap_of",
    "taps_of",
]


def readers_of(structure: Structure) -> dict[Consumer, Features]:
    """Return the consumers that read a prunable group, with the layout of their features.

    Args:
        structure: of the network.

    """
    read = {consumer for group in structure.prunable for consumer in group.consumers}
    return {consumer: features_of(structure, consumer) for consumer in structure.consumers if consumer in read}


def pairs_of(structure: Structure) -> dict[Contraction, tuple[Features, Features]]:
    """Return the products of two activations that sum over a prunable group, with the layouts of both.

    Args:
        structure: of the network.

    """
    summed = {contraction for group in structure.prunable for contraction in group.contractions}
    return {pair: sides_of(structure, pair) for pair in structure.contractions if pair in summed}


def grams_of(structure: Structure, statistics: Statistics) -> dict[Consumer, NDArray[np.float64]]:
    """Return the sums of affine second moments [blocks, d+1, d+1] of all consumers that read a prunable group.

    Args:
        structure: of the network.
        statistics: of all taps.

    """
    return {
        consumer: statistics.grams[tap_of(features).key].matrix for consumer, features in readers_of(structure).items()
    }


def tap_of(features: Features) -> Tap:
    """Return where the statistics of features in a layout are taken.

    Args:
        features: the layout.

    """
    return Tap(
        features.source,
        features.axis,
        features.blocks,
        features.inner,
        features.outer,
        features.stack,
        features.relative or "",
    )


def taps_of(structure: Structure) -> list[Tap]:
    """Return the places where statistics are needed.

    Args:
        structure: of the network.

    """
    read = {tap_of(features) for features in readers_of(structure).values()}
    read |= {tap_of(normalised_features(structure, normalisation)) for normalisation in structure.normalisations}
    return sorted(read | {tap_of(side) for sides in pairs_of(structure).values() for side in sides})


def reached_groups(
    structure: Structure, groups: Sequence[Group], statistics: Statistics
) -> tuple[list[Group], list[str]]:
    """Return the groups that calibration has seen at every reader, and a warning for each of the others.

    Behind a selection (boxes above a score, the tokens of one expert) there may be nothing at all in any sample. What
    units do there is not known: they would look as if nobody missed them.

    Args:
        structure: of the network.
        groups: that are to be pruned.
        statistics: of all taps.

    Raises:
        DataError: calibration has seen none of them.

    """
    unseen = {group.name: name for group in groups if (name := _unseen_reader(structure, group, statistics))}
    lines = [
        f"'{name}' was left whole: in no calibration sample anything comes to '{reader}', which reads it; use samples "
        "on which the network has something to choose"
        for name, reader in unseen.items()
    ]
    if groups and len(unseen) == len(groups):
        raise DataError(lines[0].replace("was left whole", "cannot be ranked"))
    return [group for group in groups if group.name not in unseen], lines


def _unseen_reader(structure: Structure, group: Group, statistics: Statistics) -> str | None:
    """Return the name of a node that reads a group and that nothing came to; None where there is none."""
    for reader, features in _reading(structure, group):
        if not statistics.grams[tap_of(features).key].weight.all():
            return reader.name
    return None


def _reading(structure: Structure, group: Group) -> Iterator[tuple[Consumer | Contraction, Features]]:
    for consumer in group.consumers:
        yield consumer, features_of(structure, consumer)
    for contraction in group.contractions:
        for side in sides_of(structure, contraction):
            yield contraction, side


def few_row_warnings(statistics: Statistics, fits: Iterable[tuple[str, Tap]]) -> list[str]:
    """Return a warning for everything that was fitted on fewer rows than are advised for its features.

    Args:
        statistics: of all taps.
        fits: a fit in words, such as "'fc' was fitted", and the tap whose rows it was made on.

    """
    lines = (few_rows(fit, statistics.grams[tap.key]) for fit, tap in fits)
    return [line for line in lines if line is not None]


def normalisation_grams(structure: Structure, statistics: Statistics) -> dict[Normalisation, Gram]:
    """Return the moments of the output of each normalisation over a prunable group.

    Args:
        structure: of the network.
        statistics: of all taps.

    """
    taps = {norm: tap_of(normalised_features(structure, norm)) for norm in structure.normalisations}
    return {norm: statistics.grams[tap.key] for norm, tap in taps.items()}
