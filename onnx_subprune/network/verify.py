"""The last gate before a pruned model takes its name: ONNX's checker, ONNX Runtime, and the mask oracle.

A network shrunk without recovery computes what the dense network computes with the removed units masked where consumers
read them. If the two disagree, the structure was misread, and no model is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx

from onnx_subprune.errors import DataError, InternalError, ModelError, PlanError
from onnx_subprune.evaluate.compared_runs import ComparedNetwork, ReferenceNetwork, ReferenceRun
from onnx_subprune.model import (
    has_half,
    has_placed,
    in_float32,
    open_session,
    rounded_once_more,
    run,
    widened,
    with_placed_as_inputs,
)
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.hoisting import taken_branches
from onnx_subprune.network.rewrite import references
from onnx_subprune.noise import hushed
from onnx_subprune.plan import Plan

__all__ = [
    "TOLERANCE",
    "Rounding",
    "agree",
    "check_normalised",
    "check_structure",
    "check_sunk",
    "disagreement",
    "relative_error",
    "rounding_of",
    "storage_rounding_of",
    "verify",
]

Probe: TypeAlias = Mapping[str, np.ndarray]

# Float32 rounding through a deep network; a unit removed wrongly shows at 1e-2 and above.
TOLERANCE = 1e-3
# A network of the same structure rounds in other places, and at most about as much.
_ROUNDINGS = 10.0
# The largest of many roundings differs from draw to draw.
_STORAGE_ROUNDINGS = 1.5
# Inputs are moved by so much of themselves, so often, to see whether two networks differ by a jump alone.
_MOVE = 1e-3
_MOVES = 3


@dataclass(frozen=True)
class Rounding:
    """How far the dense network moves by rounding alone, and what two networks may differ by that should be the same.

    Attributes:
        measured: the relative error of the dense network to itself, its inputs moved by one unit in the last place.

    """

    measured: float = 0.0

    @property
    def tolerance(self) -> float:
        """The relative error up to which two networks are taken for the same."""
        return max(TOLERANCE, _ROUNDINGS * self.measured)

    def document(self) -> dict[str, float]:
        """Return both as plain data."""
        return {"rounding": self.measured, "tolerance": self.tolerance}


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


def disagreement(shrunk: onnx.ModelProto, masked: onnx.ModelProto, probe: Probe, at: Sequence[str] = ()) -> float:
    """Return the largest relative error of `shrunk` against `masked` where the two can be compared.

    The oracle holds below 1e-3. The error is infinite where `shrunk` does not run. Networks in half precision are
    compared in float32: their own rounding is far above that. Where networks decide (`model.decisions`), the decisions
    of `masked` are given to both.

    Args:
        shrunk: units removed without recovery.
        masked: the dense model with the same units masked at their consumers.
        probe: a few inputs, the arrays by name.
        at: tensors to compare at, in the place of those that follow from the outputs.

    """
    if has_half(masked):
        shrunk, masked, probe = in_float32(shrunk), in_float32(masked), widened(probe)
    reference = ReferenceNetwork(masked, at=at)
    expected = reference.run(probe)
    try:
        values = ComparedNetwork(shrunk, reference).run(expected)
    except (DataError, ModelError):
        # Where axes that belong together were cut apart the network cannot run at all; the user's model can.
        return float("inf")
    return max(_errors(values, expected), default=0.0)


def _errors(values: Mapping[str, np.ndarray], expected: ReferenceRun) -> list[float]:
    """Return the relative error at every point that was compared."""
    return [relative_error(value, expected.values[name]) for name, value in values.items()]


def rounding_of(model: onnx.ModelProto, probe: Probe, at: Sequence[str] = ()) -> float:
    """Return how far a network moves by rounding alone, as `disagreement` measures it.

    The network runs once more, its operators unfused and its float inputs moved by one unit in the last place: what
    differs then says nothing about how it was read.

    Args:
        model: the network.
        probe: a few inputs, the arrays by name.
        at: tensors to compare at, in the place of those that follow from the outputs.

    """
    if has_half(model):
        model, probe = in_float32(model), widened(probe)
    reference = ReferenceNetwork(model, at=at)
    expected = reference.run(probe)
    moved = {name: np.nextafter(x, np.inf, dtype=x.dtype) if x.dtype.kind == "f" else x for name, x in probe.items()}
    unfused = ComparedNetwork(model, reference, optimise=False)
    values = unfused.run(replace(expected, feeds=moved))
    return max(_errors(values, expected), default=0.0)


def storage_rounding_of(model: onnx.ModelProto, probe: Probe, at: Sequence[str] = ()) -> float:
    """Return how far a network moves when its half-precision weights are rounded once more, as `disagreement` measures.

    The passes work weights out in float64 and round them once, to the type that they are stored in. In float32 twins,
    which round nothing to half precision, the stored weights still differ from the exact ones by that rounding.

    Args:
        model: the network; without half precision it does not move.
        probe: a few inputs, the arrays by name.
        at: tensors to compare at, in the place of those that follow from the outputs.

    """
    if not has_half(model):
        return 0.0
    reference = ReferenceNetwork(in_float32(model), at=at)
    expected = reference.run(widened(probe))
    values = ComparedNetwork(rounded_once_more(model), reference).run(expected)
    # What is not finite says nothing about roundings, and must not excuse everything.
    return max(filter(np.isfinite, _errors(values, expected)), default=0.0)


def check_normalised(analysis: Analysis, probe: Probe) -> Rounding:
    """Hold the network as the passes wrote it to the user's, before any work is spent on it.

    Args:
        analysis: of the dense network.
        probe: a few inputs, the arrays by name.

    Returns:
        How far rounding alone moves the dense network, and with it the relative error up to which the shrunk and the
        masked network, whose weights are stored alike, are taken for the same.

    Raises:
        InternalError: the two do not agree.

    """
    at = analysis.outputs_at
    rounding = Rounding(rounding_of(analysis.model, probe, at))
    error, branches = disagreement(analysis.normalised, analysis.model, probe, at), 0.0
    if analysis.hoisted is not None:
        branches = _disagreement_of_branches(analysis, (analysis.normalised, analysis.hoisted.whole), probe)
    if error > rounding.tolerance and _differ_by_a_jump(
        analysis.normalised, analysis.model, probe, rounding.tolerance, at
    ):
        error = 0.0
    # The float32 twins cannot agree closer than the folded weights are stored; asked only where it matters.
    apart = max(error, branches)
    if apart > rounding.tolerance and apart > _STORAGE_ROUNDINGS * storage_rounding_of(analysis.model, probe, at):
        raise InternalError(
            "the network with its spellings unified was expected to compute what the given one does, and does not; "
            "nothing was written, please report this"
        )
    return rounding


def check_structure(analysis: Analysis, plan: Plan, probe: Probe, tolerance: float = TOLERANCE) -> None:
    """Hold the structure to the mask oracle; where it was misread, name the groups that are to be left whole.

    Both sides of the oracle start from the network as the passes wrote it; `check_normalised` holds that to the user's.

    Args:
        analysis: of the dense network.
        plan: says which units are removed.
        probe: a few inputs, the arrays by name.
        tolerance: largest relative error that is rounding, as `check_normalised` returns it.

    Raises:
        InternalError: two networks that must agree do not.

    """
    if not _is_misread(analysis, plan, probe, tolerance):
        return
    names = [group.name for group in plan.groups if len(group.kept) < group.size]
    advice = " ".join(f"--ignore '{name}'" for name in _guilty(analysis, plan, names, probe, tolerance))
    raise InternalError(
        "the network shrunk without recovery was expected to equal the dense one with the same units masked, and does "
        f"not: its structure was misread; nothing was written; prune with {advice or 'another target'}, and please "
        "report this"
    )


def _guilty(analysis: Analysis, plan: Plan, names: Sequence[str], probe: Probe, tolerance: float) -> list[str]:
    """Return the groups that are misread also without the others, found by halving."""
    if not names or not _is_guilty(analysis, plan.only(*names), probe, tolerance):
        return []
    if len(names) == 1:
        return list(names)
    half = len(names) // 2
    parts = (_guilty(analysis, plan, part, probe, tolerance) for part in (names[:half], names[half:]))
    return [name for part in parts for name in part]


def _is_guilty(analysis: Analysis, alone: Plan, probe: Probe, tolerance: float) -> bool:
    try:
        return _is_misread(analysis, alone, probe, tolerance)
    except PlanError:
        # A group that went as a whole because of others cannot go without them.
        return False


def _is_misread(analysis: Analysis, plan: Plan, probe: Probe, tolerance: float) -> bool:
    return not agree(analysis, lambda: references(analysis, plan), probe, tolerance)


def agree(
    analysis: Analysis,
    networks: Callable[[], tuple[onnx.ModelProto, onnx.ModelProto]],
    probe: Probe,
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether two networks compute the same, up to rounding, whichever of the hoisted branches are taken.

    Args:
        analysis: of the dense network; large weights that the two put into its scratch folder go again.
        networks: writes the network in question and the one that it is held to.
        probe: a few inputs, the arrays by name.
        tolerance: largest relative error that is rounding.

    """
    with analysis.scratch.passing() if analysis.scratch is not None else nullcontext():
        network, expected = networks()
        at = analysis.outputs_at
        error = disagreement(network, expected, probe, at)
        if error > tolerance and not (
            np.isfinite(error) and _differ_by_a_jump(network, expected, probe, tolerance, at)
        ):
            return False
        return _disagreement_of_branches(analysis, (network, expected), probe) <= tolerance


def _differ_by_a_jump(
    network: onnx.ModelProto, expected: onnx.ModelProto, probe: Probe, tolerance: float, at: Sequence[str]
) -> bool:
    """Whether two networks agree on inputs beside those that they differ on: then a value lay where the network jumps.

    A rounding turns a threshold that a value happens to lie at, on these inputs and not on others. What was misread is
    wrong on all of them.
    """
    return any(disagreement(network, expected, moved, at) <= tolerance for moved in _moved(probe))


def _moved(probe: Probe) -> Iterator[Probe]:
    """Yield the inputs moved a little: floats, but for single values, which sizes may follow from."""
    rng = np.random.default_rng(0)
    floats = [name for name, x in probe.items() if x.dtype.kind == "f" and x.size > 1]
    for _ in range(_MOVES if floats else 0):
        factors = {name: 1 + _MOVE * rng.standard_normal(probe[name].shape) for name in floats}
        yield {**probe, **{name: (probe[name] * by).astype(probe[name].dtype) for name, by in factors.items()}}


def _disagreement_of_branches(analysis: Analysis, pair: tuple[onnx.ModelProto, onnx.ModelProto], probe: Probe) -> float:
    """Return the largest relative error of two networks that take the same branch every time, then the other one."""
    versions = taken_branches(analysis.hoisted)
    return max(
        (
            disagreement(version(pair[0]), version(pair[1]), probe, analysis.outputs_at)
            for version in versions
            if _runs(version(pair[1]), probe)
        ),
        default=0.0,
    )


def check_sunk(model: onnx.ModelProto, hoisted: onnx.ModelProto, analysis: Analysis, probe: Probe) -> None:
    """Hold a network with its branches within their Ifs to the same one with hoisted branches, in both branches.

    Args:
        model: as it is to be written.
        hoisted: as it was recovered.
        analysis: of the dense network.
        probe: a few inputs, the arrays by name.

    Raises:
        InternalError: the two do not agree.

    """
    if analysis.hoisted is not None and not agree(analysis, lambda: (model, hoisted), probe):
        raise InternalError(
            "the network with its branches back in place was expected to compute what it did before, and does not; "
            "nothing was written, please report this"
        )


def _runs(model: onnx.ModelProto, probe: Probe) -> bool:
    """Whether a network runs: what follows on a branch that is not taken may not fit what it gives."""
    try:
        run(open_session(model), probe)
    except (DataError, ModelError):
        return False
    return True


def verify(model: onnx.ModelProto, dense: onnx.ModelProto, probe: Probe) -> None:
    """Check that a pruned model is valid ONNX, runs, and gives outputs of the shapes of the dense one, without new NaN.

    Shapes that a network decides on itself are those of the dense one's decisions. ONNX Runtime's own optimiser writes
    operators that ONNX does not know: where the dense model is not valid to the letter, a run has to do.

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
    reference = ReferenceNetwork(dense)
    expected = reference.run(probe)
    given = ComparedNetwork(model, reference, at=reference.outputs).run(expected)
    if expected.decisions:
        run(open_session(model), probe)
    for name, value in given.items():
        wanted = expected.values[name]
        if value.shape != wanted.shape or (np.isfinite(wanted).all() and not np.isfinite(value).all()):
            raise InternalError(
                f"output '{name}' of the pruned model was expected to be finite and of shape {wanted.shape}, found "
                f"shape {value.shape} or NaN; nothing was written, please report this"
            )


def _complaint(model: onnx.ModelProto) -> str | None:
    """Return what ONNX's checker has to say against a model, in a line; None where it is valid."""
    try:
        # The checker reads no weights from where they were placed, and prints what it thinks of old operators.
        with hushed():
            onnx.checker.check_model(with_placed_as_inputs(model) if has_placed(model) else model)
    except (onnx.checker.ValidationError, ValueError) as error:
        # The checker cannot take a model of more than 2 GB in memory; ONNX Runtime still checks it when it is run.
        if "2GiB" not in str(error):
            return str(error).strip().splitlines()[0]
    return None
