"""How many samples a fit needs: rows of layers with many positions come from fewer samples, which cost less to run.

Two networks on all samples are most of what exact recovery costs, and a layer on a map takes a few positions of each.
So as many samples are run as fill the rows of the layer that needs most, at a large share of the positions each.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnx_subprune.calibration import HELD, ROWS_PER_FEATURE, Dataset, probe_shapes
from onnx_subprune.calibration.held_out import Portion
from onnx_subprune.model import open_session, run
from onnx_subprune.recovery.exact.linear_layers import Linear
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.exact.targets import Networks

__all__ = ["LEAST_FEATURES", "rows_wanted", "samples_needed", "spread"]

logger = logging.getLogger(__name__)

# Neighbours on a map tell much the same: of fewer samples the fit is worse, whatever the number of rows.
_LEAST = 1024
_SHARE = 0.75
# A width of a few channels has few features, but its fit decides over as many positions.
LEAST_FEATURES = 64
# Where a fit behind a clip follows.
_CLIPPED_SHARE = 0.75


def rows_wanted(features: int, settings: Settings, *, clipped: bool = False) -> int:
    """Return how many rows to fit a layer on, at most; fewer where a fit behind a clip follows.

    That fit reads the rows again and again, and wins more than as many rows more would.
    """
    rows = math.ceil(_CLIPPED_SHARE * settings.rows) if clipped else settings.rows
    return rows * max(features, LEAST_FEATURES)


def samples_needed(
    networks: Networks, layers: Sequence[tuple[str, Linear]], data: Dataset, settings: Settings
) -> int | None:
    """Return how many samples give the rows that the layers are to be fitted on; None where all are needed.

    Args:
        networks: both of them; shapes of dense tensors for the first sample are added to those that they know.
        layers: of the pruned one that are fitted, each with the name of the dense tensor that it is fitted to.
        data: calibration samples.
        settings: how layers are fitted.

    Raises:
        ModelError: the network does not run.

    """
    if not layers or data.samples is None or data.samples <= _LEAST:
        return None
    feeds = next(iter(data.batches(1)))
    shapes = networks.sample_shapes
    unknown = [name for name, _ in layers if name not in shapes]
    if unknown:
        shapes |= _shapes_of(networks.dense, unknown, {**feeds, **networks.versions[0]}, settings)
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in networks.pruned.graph.initializer}
    needed, maps = _LEAST, False
    for name, layer in layers:
        shape = shapes[name]
        width = shape[1] if layer.spatial else shape[-1] * layer.blocks
        positions = math.prod(shape) / max(width, 1) / data.samples_in(feeds)
        features = sizes[layer.weight] // max(layer.outputs, 1)
        if positions > 1:
            maps = True
            needed = max(needed, math.ceil(rows_wanted(features, settings) / (_SHARE * positions)))
        else:
            # One row a sample, as of a classifier: what is advised will do, beside what is held out.
            needed = max(needed, math.ceil(ROWS_PER_FEATURE * features * HELD / (HELD - 1)))
    if not maps:
        return None
    logger.debug("fitting on %d of %d samples", min(needed, data.samples), data.samples)
    return needed if needed < data.samples else None


def _shapes_of(
    model: onnx.ModelProto, tensors: Sequence[str], feeds: Mapping[str, np.ndarray], settings: Settings
) -> dict[str, tuple[int, ...]]:
    probe, names = probe_shapes(model, tensors)
    session = open_session(probe, settings.providers, threads=settings.threads, optimise=False)
    values = run(session, feeds, list(names.values()))
    return {tensor: tuple(int(size) for size in values[name]) for tensor, name in names.items()}


def spread(portions: Iterable[Portion], wanted: int | None, samples: int | None) -> Iterator[Portion]:
    """Yield as many whole runs as hold the wanted samples, from all over the data; held out and not held out alike."""
    seen, taken = {False: 0, True: 0}, {False: 0, True: 0}
    for portion in portions:
        seen[portion.held] += portion.samples
        if wanted is None or samples is None or taken[portion.held] * samples < seen[portion.held] * wanted:
            taken[portion.held] += portion.samples
            yield portion
