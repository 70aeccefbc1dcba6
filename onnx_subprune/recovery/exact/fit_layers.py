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
from onnx_subprune.model import list_initializers
from onnx_subprune.progress import Progress
from onnx_subprune.recovery.exact.biases import with_biases, without_idle_biases
from onnx_subprune.recovery.exact.constant_nodes import stored_as_initializers
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.fused_nodes import Apart, names_in, take_apart
from onnx_subprune.recovery.exact.linear_layers import Linear, find_linears
from onnx_subprune.recovery.exact.paired_run import PairedRun
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.exact.steps import Step, steps_of
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
    """The fitted network and an account of its layers.

    Attributes:
        model: the pruned network with fitted weights.
        layers: that were fitted, with their errors before and after.
        left: why other layers stayed as they were, by name.

    """

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

    Returns:
        The fitted network, with the nodes of the pruned one; what came of each layer; and why others stayed.

    Raises:
        ModelError: a segment does not run.
        OutputError: there is no room for the activations.

    """
    settings, given = settings or Settings(), networks.pruned
    stored = [stored_as_initializers(network) for network in (networks.dense, networks.pruned)]
    taken = names_in(networks.dense) | names_in(networks.pruned)
    dense, pruned = (take_apart(network.model, taken) for network in stored)
    model, added = with_biases(pruned.model)
    networks = replace(networks, dense=dense.model, pruned=model, restrict=_restrict_parts(networks.restrict, dense))
    linears, unfitted = find_linears(model)
    surroundings = Surroundings(model, dense.model)
    targets = Targets(dense.model, networks.restrict, surroundings)
    reasons = {linear.name: targets.refusal(linear) for linear in linears}
    linears, further = _with_targets(linears, {name: reason for name, reason in reasons.items() if reason is not None})
    unfitted |= further
    steps = steps_of(model, linears, surroundings, settings)
    with side_by_side(settings.threads), PairedRun(networks, surroundings, steps, data, settings) as run:
        layers, failed = _fit(run, steps, settings.seed, progress)
    fitted = pruned.fuse(without_idle_biases(model, added))
    listed = list_initializers(stored[1].as_nodes(fitted), given)
    return Refit(listed, tuple(layers), unfitted | failed)


def _fit(
    run: PairedRun, steps: Sequence[Step], seed: int, progress: Progress | None
) -> tuple[list[LayerFit], dict[str, str]]:
    """Fit step after step; returns what came of the layers, and why others stayed as they were."""
    layers: list[LayerFit] = []
    unfitted: dict[str, str] = {}
    done, count = 0, sum(len(step.linears) for step in steps)
    for number, step in enumerate(steps):
        if progress is not None:
            progress(done, count)
        done += len(step.linears)
        refined = run.fit(step, np.random.default_rng((seed, number)))
        if isinstance(refined, str):
            unfitted |= dict.fromkeys([linear.name for linear in step.linears], refined)
            continue
        refused = run.write(step, refined)
        unfitted |= {linear.name: "its type cannot hold the weights that were found" for linear in refused}
        for linear, fit in zip(step.linears, refined, strict=True):
            if linear not in refused:
                layers.append(LayerFit(linear.name, fit.before, fit.after, fit.strength, fit.factors))
                logger.debug("fitted %s", layers[-1])
    if progress is not None:
        progress(count, count)
    return layers, unfitted


def _restrict_parts(restrict: Restrict, apart: Apart) -> Restrict:
    """Return a function that cuts the parts of fused nodes down as their outputs are."""
    return lambda name, value: restrict(apart.stands_for.get(name, name), value)


def _with_targets(linears: list[Linear], refused: dict[str, str]) -> tuple[list[Linear], dict[str, str]]:
    """Return the layers that are left without those that have no target, or share a weight with one; and why."""
    weights = {linear.weight: linear for linear in linears if linear.name in refused}
    without_target = {
        linear.name: refused.get(linear.name)
        or f"it shares its weight with '{weights[linear.weight].name}': {refused[weights[linear.weight].name]}"
        for linear in linears
        if linear.weight in weights
    }
    return [linear for linear in linears if linear.name not in without_target], without_target
