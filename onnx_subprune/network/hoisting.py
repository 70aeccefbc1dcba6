"""Branches of Ifs in the main graph: which of them can be there, and the form of a network in which they are.

A hoisted branch runs on every sample, taken or not. So it is tried first: a branch that fails where it is not taken, or
gives what is not finite, stays within its If, and nothing that it touches is pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort

from onnx_subprune import passes
from onnx_subprune.errors import UserError
from onnx_subprune.model import open_session, run, to_graph, to_model
from onnx_subprune.model.forced_branches import branch_input, with_branch_as_input, with_branch_taken
from onnx_subprune.model.products import needed_tensors
from onnx_subprune.structure import Place, is_hoisted

__all__ = [
    "Hoisted",
    "Trial",
    "branch_inputs",
    "fails_where_not_taken",
    "hoist",
    "still_hoisted",
    "sunk",
    "taken_branches",
]

Trial = Mapping[str, np.ndarray]
"""Inputs by name, with which branches are tried."""

# What was made later may run in a branch.
_ANYWHERE: Place = (("", ""),)
# With more branches they are hoisted all or none.
_MOST_ALONE = 8


@dataclass(frozen=True, eq=False)
class Hoisted:
    """Branches that stand in the main graph.

    Attributes:
        whole: the network before.
        origins: where tensors were made in it, by name.
        ifs: the first output of every If whose branches are hoisted, those within others too.
        left: why other branches were not hoisted.
        trials: inputs that they were tried with.

    """

    whole: onnx.ModelProto
    origins: Mapping[str, Place]
    ifs: tuple[str, ...]
    left: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()


def hoist(graph: gs.Graph, whole: onnx.ModelProto, trials: Sequence[Trial]) -> Hoisted:
    """Hoist the branches that hold weights, as far as they run on all inputs.

    Args:
        graph: of the network; it is edited.
        whole: the same as a model.
        trials: inputs on which the network runs; without any, all branches are hoisted.

    """
    overridable = passes.overridable_initializers(whole)
    chosen, left = _chosen(graph, whole, trials, overridable)
    lifted = passes.HoistBranches(chosen, overridable)
    lifted(graph)
    return Hoisted(whole, lifted.origins, _hoisted_ifs(graph), tuple(left), tuple(trials))


def still_hoisted(hoisted: Hoisted, graph: gs.Graph) -> Hoisted:
    """Return the branches as far as other passes have not taken away their Ifs.

    Args:
        hoisted: the branches.
        graph: of the network with them, as passes left it.

    """
    return replace(hoisted, ifs=_hoisted_ifs(graph))


def sunk(model: onnx.ModelProto, hoisted: Hoisted) -> onnx.ModelProto:
    """Return a network with its nodes back in the branches that they were hoisted from.

    Args:
        model: made of the hoisted network.
        hoisted: says where they came from.

    """
    graph = to_graph(model)
    sinking = passes.SinkBranches(hoisted.origins)
    passes.Mandatory(sinking)(graph)
    return to_model(graph, hoisted.whole, shared=sinking.shared)


def taken_branches(hoisted: Hoisted | None) -> list[Callable[[onnx.ModelProto], onnx.ModelProto]]:
    """Return what makes versions of networks that take one branch every time: every then_branch, or every else_branch.

    Args:
        hoisted: the branches; of none there are no versions.

    """
    if hoisted is None or not hoisted.ifs:
        return []
    return [partial(with_branch_taken, ifs=hoisted.ifs, then=then) for then in (True, False)]


def branch_inputs(model: onnx.ModelProto, hoisted: Hoisted, samples: Callable[[], Iterable[Trial]]) -> list[Trial]:
    """Return the inputs beside its own with which a network takes one branch every time, as far as it runs with them.

    Args:
        model: the network, with conditions (`model.forced_branches`).
        hoisted: the branches.
        samples: returns inputs on which the network itself runs.

    """
    if not hoisted.ifs:
        return []
    session = open_session(with_branch_as_input(model, hoisted.ifs))
    inputs = [branch_input(then=then) for then in (True, False)]
    return [given for given in inputs if all(_accepts(session, {**sample, **given}) for sample in samples())]


def fails_where_not_taken(flat: onnx.ModelProto, hoisted: Hoisted, trial: Trial) -> str | None:
    """Return why hoisted branches do not run on some inputs; None where they do.

    Args:
        flat: the hoisted network.
        hoisted: says where they came from.
        trial: inputs on which the network itself runs.

    """
    return _failure(flat, hoisted.origins, trial) if _runs(hoisted.whole, trial) else None


def _chosen(
    graph: gs.Graph, whole: onnx.ModelProto, trials: Sequence[Trial], overridable: frozenset[str]
) -> tuple[list[passes.Branch], list[str]]:
    """Return the branches to hoist, and why others are not hoisted: all if they run, else those that run alone."""
    branches = passes.weighted_branches(graph)
    runnable = [trial for trial in trials if _runs(whole, trial)]
    reason = _reason(whole, branches, runnable, overridable)
    if reason is None:
        return branches, []
    chosen: list[passes.Branch] = []
    left: list[str] = []
    for branch in branches:
        reason = reason if len(branches) > _MOST_ALONE else _reason(whole, [*chosen, branch], runnable, overridable)
        if reason is None:
            chosen.append(branch)
        else:
            left.append(
                f"HoistBranches: nothing is pruned in the {branch[1].removesuffix('_branch')} branch of If "
                f"'{branch[0]}', which {reason} where it is not taken"
            )
    return chosen, left


def _reason(
    whole: onnx.ModelProto, branches: Sequence[passes.Branch], trials: Sequence[Trial], overridable: frozenset[str]
) -> str | None:
    """Return why branches cannot be hoisted together; None where they can."""
    if not trials:
        return None
    graph = to_graph(whole)
    lifted = passes.HoistBranches(branches, overridable)
    passes.Sequence(lifted, passes.InlineBranches(overridable), passes.Tidy())(graph)
    flat = to_model(graph, whole)
    return next((reason for trial in trials if (reason := _failure(flat, lifted.origins, trial)) is not None), None)


def _failure(flat: onnx.ModelProto, origins: Mapping[str, Place], trial: Trial) -> str | None:
    """Return why a network with hoisted branches does not run; what they multiply has to be finite too."""
    products = [node for node in flat.graph.node if needed_tensors(node) and origins.get(node.output[0], _ANYWHERE)]
    watched = dict.fromkeys(name for node in products for name in (node.input[0], node.output[0]))
    made = {name for node in flat.graph.node for name in node.output}
    probe = onnx.ModelProto()
    probe.CopyFrom(flat)
    known = {value.name for value in flat.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in watched if name in made - known)
    try:
        values = run(open_session(probe, optimise=False), trial)
    except UserError as error:
        return f"does not run ({error})"
    infinite = [name for name in watched if name in values and not _is_finite(values[name])]
    return f"gives NaN or infinite values ('{infinite[0]}')" if infinite else None


def _is_finite(value: np.ndarray) -> bool:
    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _runs(model: onnx.ModelProto, trial: Trial) -> bool:
    try:
        return _accepts(open_session(model, optimise=False), trial)
    except UserError:
        return False


def _accepts(session: ort.InferenceSession, trial: Trial) -> bool:
    try:
        run(session, trial)
    except UserError:
        return False
    return True


def _hoisted_ifs(graph: gs.Graph) -> tuple[str, ...]:
    return tuple(str(node.outputs[0].name) for node in graph.nodes if is_hoisted(node))
