"""Sequential, asymmetric recovery: layer after layer, the pruned network is fitted to what the dense one computes.

Both networks run side by side, segment by segment. At each linear layer the inputs are those of the pruned network
with all earlier layers fitted already; the target is the dense layer's output, plus the drift of the shortcut it is
added to. So every layer also repairs what pruning before it broke, whether it lost inputs itself or not. Layers that
read the same tensor in the same way are fitted together: their inputs are taken apart and multiplied once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from onnx_subprune.calibration import Dataset
from onnx_subprune.progress import Progress
from onnx_subprune.recovery.exact.biases import with_biases, without_idle_biases
from onnx_subprune.recovery.exact.constant_nodes import stored_as_initializers
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.fused_nodes import Apart, names_in, taken_apart
from onnx_subprune.recovery.exact.linear_layers import Linear, find_linears
from onnx_subprune.recovery.exact.paired_run import PairedRun
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.exact.steps import steps_of
from onnx_subprune.recovery.exact.targets import Networks, Restrict, Targets
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
    stored = [stored_as_initializers(network) for network in (networks.dense, networks.pruned)]
    taken = names_in(networks.dense) | names_in(networks.pruned)
    dense, pruned = (taken_apart(network.model, taken) for network in stored)
    model, added = with_biases(pruned.model)
    networks = replace(networks, dense=dense.model, pruned=model, restrict=_extended(networks.restrict, dense))
    linears, left = find_linears(model)
    surroundings = Surroundings(model, dense.model)
    targets = Targets(dense.model, networks.restrict, surroundings)
    reasons = {linear.name: targets.refusal(linear) for linear in linears}
    linears, further = _whole(linears, {name: reason for name, reason in reasons.items() if reason is not None})
    left |= further
    layers: list[LayerFit] = []
    done = 0
    steps = steps_of(model, linears, surroundings, settings)
    with side_by_side(settings.threads), PairedRun(networks, surroundings, steps, data, settings) as run:
        for number, step in enumerate(steps):
            if progress is not None:
                progress(done, len(linears))
            done += len(step.linears)
            refined = run.fit(step, np.random.default_rng((settings.seed, number)))
            if isinstance(refined, str):
                left |= dict.fromkeys([linear.name for linear in step.linears], refined)
                continue
            refused = run.write(step, refined)
            left |= {linear.name: "its type cannot hold the weights that were found" for linear in refused}
            for linear, fit in zip(step.linears, refined, strict=True):
                if linear not in refused:
                    layers.append(LayerFit(linear.name, fit.before, fit.after, fit.strength, fit.factors))
                    logger.debug("fitted %s", layers[-1])
    if progress is not None:
        progress(len(linears), len(linears))
    fitted = pruned.together(without_idle_biases(model, added))
    return Refit(stored[1].as_nodes(fitted), tuple(layers), left)


def _extended(restrict: Restrict, apart: Apart) -> Restrict:
    """Return a function that cuts the parts of fused nodes down as their outputs are."""
    return lambda name, value: restrict(apart.stands_for.get(name, name), value)


def _whole(linears: list[Linear], refused: dict[str, str]) -> tuple[list[Linear], dict[str, str]]:
    """Return the layers that are left without those that have no target, or share a weight with one; and why."""
    weights = {linear.weight: linear for linear in linears if linear.name in refused}
    left = {
        linear.name: refused.get(linear.name)
        or f"it shares its weight with '{weights[linear.weight].name}': {refused[weights[linear.weight].name]}"
        for linear in linears
        if linear.weight in weights
    }
    return [linear for linear in linears if linear.name not in left], left
