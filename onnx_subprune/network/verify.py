"""The last gate before a pruned model takes its name: ONNX's checker, ONNX Runtime, and the mask oracle.

A network shrunk without recovery computes what the dense network computes with the removed units masked where consumers
read them. If the two disagree, the structure was misread, and no model is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TypeAlias

import numpy as np
import onnx

from onnx_subprune.errors import InternalError, ModelError, PlanError
from onnx_subprune.model import has_half, has_placed, in_float32, open_session, run, widened, with_placed_as_inputs
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.rewrite import references
from onnx_subprune.plan import Plan

__all__ = ["TOLERANCE", "agree", "check_structure", "disagreement", "relative_error", "verify"]

Probe: TypeAlias = Mapping[str, np.ndarray]

# Float32 rounding through a deep network; a unit removed wrongly shows at 1e-2 and above.
TOLERANCE = 1e-3


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest absolute difference over the largest absolute expected value.

    Entries that are NaN or infinite count as equal only to the same (inf otherwise); two empty arrays differ by 0.

    Args:
        actual: an array.
        expected: of the same shape; the error is infinite for any other.

    >>> relative_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    0.5

    """
    if actual.shape != expected.shape:
        return float("inf")
    a, b = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf")
    a, b = a[finite], b[finite]
    if not a.size:
        return 0.0
    scale = float(np.abs(b).max()) or 1.0
    with np.errstate(invalid="ignore"):
        worst = float(np.abs(a - b).max())
    return worst / scale if np.isfinite(worst) else float("inf")


def disagreement(shrunk: onnx.ModelProto, masked: onnx.ModelProto, probe: Probe) -> float:
    """Return the largest relative error of an output of `shrunk` against `masked`; the oracle holds below 1e-3.

    It is infinite where `shrunk` does not run. Networks in half precision are compared in float32: their own rounding
    is far above that. An output of a Sigmoid is compared before it: where all of it is near zero, a rounding error
    there becomes one of any size behind.

    Args:
        shrunk: units removed without recovery.
        masked: the dense model with the same units masked at their consumers.
        probe: a few inputs, the arrays by name.

    """
    if has_half(masked):
        shrunk, masked, probe = in_float32(shrunk), in_float32(masked), widened(probe)
    expected = _outputs(masked, probe)
    try:
        computed = _outputs(shrunk, probe)
    except ModelError:
        # Where axes that belong together were cut apart the network cannot run at all; the user's model can.
        return float("inf")
    last = {name: min(len(values), len(computed[name])) - 1 for name, values in expected.items()}
    return max(relative_error(computed[name][last[name]], values[last[name]]) for name, values in expected.items())


def _outputs(model: onnx.ModelProto, probe: Probe) -> dict[str, list[np.ndarray]]:
    """Return each output of a network; behind it, where a Sigmoid computes it, the input of that Sigmoid."""
    outputs = [value.name for value in model.graph.output]
    sigmoids = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Sigmoid"}
    computed = {name for node in model.graph.node for name in node.output}
    before = {name: sigmoids[name] for name in outputs if sigmoids.get(name) in computed}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted({*before.values()} - {*outputs}))
    try:
        values = run(open_session(model), probe)
    finally:
        del model.graph.output[len(outputs) :]
    return {name: [values[name], *([values[before[name]]] if name in before else [])] for name in outputs}


def check_structure(analysis: Analysis, plan: Plan, probe: Probe) -> None:
    """Hold the structure to the mask oracle; where it was misread, name the groups that are to be left whole.

    Both sides of the oracle start from the network as the passes wrote it, so that is held to the user's first.

    Args:
        analysis: of the dense network.
        plan: says which units are removed.
        probe: a few inputs, the arrays by name.

    Raises:
        InternalError: two networks that must agree do not.

    """
    if disagreement(analysis.normalised, analysis.model, probe) > TOLERANCE:
        raise InternalError(
            "the network with its spellings unified was expected to compute what the given one does, and does not; "
            "nothing was written, please report this"
        )
    if not _is_misread(analysis, plan, probe):
        return
    alone = {group.name: plan.only(group.name) for group in plan.groups if len(group.kept) < group.size}
    guilty = [name for name, smaller_plan in alone.items() if _is_guilty(analysis, smaller_plan, probe)]
    advice = " ".join(f"--ignore '{name}'" for name in guilty) or "another target"
    raise InternalError(
        "the network shrunk without recovery was expected to equal the dense one with the same units masked, and does "
        f"not: its structure was misread; nothing was written; prune with {advice}, and please report this"
    )


def _is_guilty(analysis: Analysis, alone: Plan, probe: Probe) -> bool:
    try:
        return _is_misread(analysis, alone, probe)
    except PlanError:
        # A group that went as a whole because of others cannot go without them.
        return False


def _is_misread(analysis: Analysis, plan: Plan, probe: Probe) -> bool:
    return not agree(analysis, lambda: references(analysis, plan), probe)


def agree(analysis: Analysis, networks: Callable[[], tuple[onnx.ModelProto, onnx.ModelProto]], probe: Probe) -> bool:
    """Whether two networks compute the same, up to rounding.

    Args:
        analysis: of the dense network; large weights that the two put into its scratch folder go again.
        networks: writes the network in question and the one that it is held to.
        probe: a few inputs, the arrays by name.

    """
    with analysis.scratch.passing() if analysis.scratch is not None else nullcontext():
        return disagreement(*networks(), probe) <= TOLERANCE


def verify(model: onnx.ModelProto, dense: onnx.ModelProto, probe: Probe) -> None:
    """Check that a pruned model is valid ONNX, runs, and gives outputs of the shapes of the dense one, without new NaN.

    ONNX Runtime's own optimiser writes operators that ONNX does not know: where the dense model is not valid to the
    letter, a run has to do.

    Args:
        model: the pruned model.
        dense: the model as it was given.
        probe: a few inputs, the arrays by name.

    Raises:
        InternalError: a check failed.

    """
    complaint = _complaint(model)
    if complaint is not None and _complaint(dense) is None:
        raise InternalError(f"the pruned model is not valid ONNX: {complaint}; please report this")
    expected = run(open_session(dense), probe)
    for name, value in run(open_session(model), probe).items():
        wanted = expected[name]
        if value.shape != wanted.shape or (np.isfinite(wanted).all() and not np.isfinite(value).all()):
            raise InternalError(
                f"output '{name}' of the pruned model was expected to be finite and of shape {wanted.shape}, found "
                f"shape {value.shape} or NaN; nothing was written, please report this"
            )


def _complaint(model: onnx.ModelProto) -> str | None:
    """Return what ONNX's checker has to say against a model, in a line; None where it is valid."""
    try:
        # The checker reads no weights from where they were placed.
        onnx.checker.check_model(with_placed_as_inputs(model) if has_placed(model) else model)
    except (onnx.checker.ValidationError, ValueError) as error:
        # The checker cannot take a model of more than 2 GB in memory; ONNX Runtime still checks it when it is run.
        if "2GiB" not in str(error):
            return str(error).strip().splitlines()[0]
    return None
