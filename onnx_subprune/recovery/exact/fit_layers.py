"""Sequential, asymmetric recovery: layer after layer, the pruned network is fitted to what the dense one computes.

Both networks run side by side, segment by segment. At each linear layer the inputs are those of the pruned network
with all earlier layers fitted already; the target is the dense layer's output, plus the drift of the shortcut it is
added to. So every layer also repairs what pruning before it broke, whether it lost inputs itself or not. Layers that
read the same tensor in the same way are fitted together: their inputs are taken apart and multiplied once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnx_subprune.calibration import Dataset
from onnx_subprune.progress import Progress
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import Linear, find_linears, with_biases, without_idle_biases
from onnx_subprune.recovery.exact.paired_run import Networks, PairedRun
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.threads import side_by_side

__all__ = ["LayerFit", "Refit", "refit"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerFit:
    """What came of one layer.

    Attributes:
        name: of the node.
        before, after: share of its target that is missed on the samples held out, before and after.
        strength: of the ridge; infinite where the layer stayed as it was.
        factors: how far its own error, and the drift of its shortcut, are corrected.

    """

    name: str
    before: float
    after: float
    strength: float
    factors: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Refit:
    """The fitted network, what came of each layer, and why layers were left as they were, by name."""

    model: onnx.ModelProto
    layers: tuple[LayerFit, ...]
    left: Mapping[str, str] = field(default_factory=dict)


def refit(
    networks: Networks, data: Dataset, settings: Settings | None = None, progress: Progress | None = None
) -> Refit:
    """Fit all linear layers of a pruned network, which is not changed, to the dense one, in graph order.

    Args:
        networks: both of them.
        data: calibration samples.
        settings: see there.
        progress: called with the layers done and their number.

    Raises:
        ModelError: a segment does not run.
        OutputError: there is no room for the activations.

    """
    settings = settings or Settings()
    model, added = with_biases(networks.pruned)
    linears, left = find_linears(model)
    surroundings = Surroundings(model, networks.dense)
    known = {name for node in networks.dense.graph.node for name in node.output}
    left |= {one.name: "the dense network has no such tensor" for one in linears if one.output not in known}
    steps = [one for one in linears if one.output in known]
    layers: list[LayerFit] = []
    done = 0
    with (
        side_by_side(settings.threads),
        PairedRun(replace(networks, pruned=model), surroundings, steps, data, settings) as work,
    ):
        for number, together in enumerate(_together(steps, surroundings, settings)):
            if progress is not None:
                progress(done, len(steps))
            done += len(together)
            found = work.fit(together, np.random.default_rng((settings.seed, number)))
            if isinstance(found, str):
                left |= dict.fromkeys([one.name for one in together], found)
                continue
            for linear, one in zip(together, found, strict=True):
                if not work.write(linear, one):
                    left[linear.name] = "its type cannot hold the weights that were found"
                    continue
                layers.append(LayerFit(linear.name, one.before, one.after, one.strength, one.factors))
                logger.debug("fitted %s", layers[-1])
    if progress is not None:
        progress(len(steps), len(steps))
    return Refit(without_idle_biases(model, added), tuple(layers), left)


def _together(steps: Sequence[Linear], surroundings: Surroundings, settings: Settings) -> list[list[Linear]]:
    """Return the layers in order, those that read the same rows in one list, at the place of the first."""
    found: dict[object, list[Linear]] = {}
    for linear in steps:
        alone = linear.blocks > 1 or surroundings.normalised(linear, None, linear.rank)
        alone |= surroundings.shifted(linear) is not None
        alone |= settings.sequential and surroundings.shortcut(linear) is not None
        found.setdefault(id(linear) if alone else (linear.reading, linear.bias is None), []).append(linear)
    return list(found.values())
