"""Which multiples of channels are fast on this machine, from the cache or measured now, and curves of such widths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from onnx_subprune import budget
from onnx_subprune.latency import FAMILIES, Decision, Record, families_of, kept, machine, measured_multiples
from onnx_subprune.model import Runtime, has_half
from onnx_subprune.progress import Progress
from onnx_subprune.structure import Structure

__all__ = ["WidthMultiples", "fast_multiples", "known_multiples", "with_multiples"]


@dataclass(frozen=True)
class WidthMultiples:
    """Which multiples of channels pay.

    Attributes:
        by_family: the multiples, by kind of work.
        warnings: for the user.

    """

    by_family: Mapping[str, int]
    warnings: tuple[str, ...] = ()


def fast_multiples(
    model: onnx.ModelProto, runtime: Runtime, progress: Progress | None = None, *, remeasure: bool = False
) -> WidthMultiples:
    """Return which multiples pay for a model on this machine, from the cache or measured now.

    Args:
        model: the dense network; on an accelerator its type decides which kernels are measured.
        runtime: where it runs.
        progress: called with the measurements made and their number.
        remeasure: whether to forget the cache.

    """
    on_cpu = tuple(name.lower() for name in runtime.providers) in (("cpu",), ("cpuexecutionprovider",))
    dtype = "float16" if not on_cpu and has_half(model) else "float32"
    key = {**machine(runtime.providers, runtime.threads), "dtype": dtype}
    record = Record("multiples", key, anew=remeasure)
    decisions = _cached_decisions(record)
    if decisions is None:
        decisions = measured_multiples(runtime.providers, runtime.threads, dtype, progress=progress)
        record.data = {family: vars(decision) for family, decision in decisions.items()}
        record.save()
    undecided = [family for family, decision in decisions.items() if not decision.sure]
    warning = (
        f"the measurements leave open which multiples pay for {', '.join(undecided)}: the smallest were taken that are "
        "not slower; --remeasure on a quiet machine"
    )
    warnings = (*record.warnings, *([warning] if undecided else []))
    return WidthMultiples({family: decision.multiple for family, decision in decisions.items()}, warnings)


def known_multiples() -> dict[str, dict[str, int]]:
    """Return the multiples in the cache of this machine, by what they were measured with and by kind of work."""
    known = {}
    for key, data in kept("multiples"):
        threads = "all threads" if key.get("threads") is None else f"{key['threads']} threads"
        decisions = _parse_decisions(data)
        if decisions is not None:
            conditions = ", ".join([*map(str, key.get("providers", ())), str(key.get("dtype")), threads])
            known[conditions] = {family: decision.multiple for family, decision in decisions.items()}
    return known


def with_multiples(
    curves: Sequence[budget.Curve], structure: Structure, multiples: Mapping[str, int]
) -> list[budget.Curve]:
    """Return the curves with widths that are multiples of those that pay for all producers and consumers.

    Args:
        curves: of groups of the structure.
        structure: of the network.
        multiples: of channels, by kind of work.

    """
    groups = {group.name: group for group in structure.prunable}
    rounded = []
    for curve in curves:
        group = groups[curve.group]
        channels = math.lcm(1, *(multiples[family] for family in families_of(group)))
        # A kernel sees the width of an axis; a unit may be many entries of it (an attention head).
        units = math.lcm(curve.round_to, channels // math.gcd(channels, group.entries))
        rounded.append(replace(curve, round_to=units))
    return rounded


def _parse_decisions(data: Mapping[str, Any]) -> dict[str, Decision] | None:
    try:
        return {family: Decision(int(entry["multiple"]), bool(entry["sure"])) for family, entry in data.items()}
    except (KeyError, TypeError, ValueError):
        return None


def _cached_decisions(record: Record) -> dict[str, Decision] | None:
    if not record.data:
        return None
    decisions = _parse_decisions(record.data)
    if decisions is None:
        record.forget("a damaged entry")
        return None
    if set(decisions) != set(FAMILIES) or any(decision.multiple < 1 for decision in decisions.values()):
        record.forget("other entries")
        return None
    return decisions
