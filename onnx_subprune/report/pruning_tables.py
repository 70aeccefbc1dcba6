"""Tables and sentences on a pruned or factorised model, made of its document: costs, widths, ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.table import Table

from onnx_subprune.formatting import change, count, duration, milliseconds, percent
from onnx_subprune.report.table import Row, table

__all__ = [
    "cost_table",
    "drop_line",
    "forecast_line",
    "odd_widths_line",
    "oracle_line",
    "output_error_line",
    "rank_table",
    "speed_line",
    "width_table",
]

# Vectors of the CPUs in use hold 8 or 16 numbers, tensor cores of GPUs take 8 or more at once.
_BLOCK = 8


def cost_table(document: Mapping[str, Any], title: str | None = None) -> Table:
    """Return a table of accuracy and latency where measured, costs, and nodes by operator, before and after.

    Args:
        document: of a pruning (`Result.to_dict`) or of a factorisation.
        title: over the table; None for none.

    """
    dense, pruned = document["dense"], document["pruned"]
    operators = document["operators"]
    rows = [
        *_accuracy_rows(document),
        *_timing_rows(document),
        _compared("parameters", dense["parameters"], pruned["parameters"], count),
        _compared("MACs", dense["macs"], pruned["macs"], count),
        _compared("size", dense["bytes"], pruned["bytes"], _bytes),
        *_latency_rows(document),
        _compared("nodes", sum(operators["dense"].values()), sum(operators["pruned"].values()), str),
        *_operator_rows(operators["dense"], operators["pruned"]),
    ]
    return table(("", "dense", "pruned", "pruned / dense"), rows, "lrrr", title)


def width_table(document: Mapping[str, Any]) -> Table:
    """Return a table of the prunable groups: units before and after, the share of their readers' inputs that is lost.

    Args:
        document: of a pruning (`Result.to_dict`).

    """
    rows = [
        (
            group["name"],
            str(group["units"]),
            str(group["kept"]),
            f"{group['kept'] / group['units']:.0%}",
            _lost_share(group, document["errors"]),
        )
        for group in document["groups"]
    ]
    return table(("group", "units", "kept", "share", "lost"), rows, "lrrrr")


def rank_table(document: Mapping[str, Any]) -> Table:
    """Return a table of the layers that can be factorised: the rank of the two in their place, MACs, the lost share.

    The lost share is one of the variance of a layer's outputs.

    Args:
        document: of a factorisation.

    """
    rows = [
        (
            layer["name"],
            f"{layer['features']} x {layer['outputs']}",
            "-" if layer["rank"] is None else str(layer["rank"]),
            f"{layer['macs_kept'] / layer['macs']:.0%}" if layer["macs"] else "-",
            "-" if layer["rank"] is None else f"{1 - layer['share']:.1%}",
        )
        for layer in document["layers"]
    ]
    return table(("layer", "size", "rank", "MACs kept", "lost"), rows, "lrrrr")


def drop_line(document: Mapping[str, Any]) -> str | None:
    """Return a sentence on the fall of the metric that a target `drop` measured; None for other targets.

    Args:
        document: of a pruning (`Result.to_dict`).

    """
    drop = document.get("drop")
    if drop is None:
        return None
    fall, allowed = drop["fall"], drop["allowed"]
    tried = f"the smallest of {len(drop['tried'])} networks by its {drop['cost']}"
    if drop["metric"] == "top-1":
        return f"top-1 falls by {100 * fall:.2f} points, of {100 * allowed:.2f} allowed; {tried}"
    if drop["metric"] == "same class":
        return f"{fall:.2%} of the samples change their largest class, of {allowed:.2%} allowed; {tried}"
    return f"the metric falls by {fall:.4g}, of {allowed:g} allowed; {tried}"


def speed_line(document: Mapping[str, Any]) -> str | None:
    """Return how long the pruned model takes, measured, and what to try where it is slower; None without times.

    Args:
        document: of a pruning (`Result.to_dict`).

    """
    measurement = _measured_ratio(document)
    if measurement is None:
        return None
    ratio, interval, conditions = measurement
    low, high = interval or (ratio, ratio)
    facts = ", ".join([*([f"{low:.0%} to {high:.0%}"] if interval else []), conditions])
    if low > 1.0:
        widths = "" if document["options"]["round_to"] == "auto" else "--round-to auto, "
        advice = f"try {widths}--target latency=F, or remove less"
        return f"slower than the dense model: {ratio:.0%} of its time ({facts}); {advice}"
    if high >= 1.0:
        return f"as fast as the dense model, as far as can be told: {ratio:.0%} of its time ({facts})"
    return f"faster: {ratio:.0%} of the dense model's time ({facts})"


def _measured_ratio(document: Mapping[str, Any]) -> tuple[float, Sequence[float] | None, str] | None:
    """Return the pruned model's time by the dense one's, the interval that holds it, and what was run."""
    if (latency := document.get("latency")) is not None:
        return latency["measured"], latency["interval"], _conditions(latency["shapes"], latency["threads"])
    if (timing := document.get("timing")) is None:
        return None
    pruned = timing["pruned"]
    conditions = _conditions(timing["input_shapes"], timing["threads"])
    return pruned["ratio_to_first"], pruned["ratio_interval"], conditions


def _conditions(shapes: Mapping[str, Sequence[int]], threads: int | None) -> str:
    inputs = ", ".join(f"{name} {'x'.join(map(str, shape)) or 'scalar'}" for name, shape in shapes.items())
    return f"{inputs}; {'all threads' if threads is None else f'threads: {threads}'}"


def forecast_line(document: Mapping[str, Any]) -> str | None:
    """Return what a run took beside what it was expected to take, and what it left out; None without a forecast.

    Args:
        document: of a pruning (`Result.to_dict`).

    """
    course = document.get("forecast")
    if course is None:
        return None
    taken, expected = duration(course["taken_seconds"]), duration(course["expected_seconds"])
    left_out = f"; left out for --time-limit: {'; '.join(course['left_out'])}" if course["left_out"] else ""
    return f"took {taken}, expected {expected}{left_out}"


def odd_widths_line(document: Mapping[str, Any]) -> str | None:
    """Return a sentence where widths came out that kernels are slow at and nobody measured; None where all are fine.

    Args:
        document: of a pruning (`Result.to_dict`).

    """
    if document["latency"] is not None or "timing" in document:
        return None
    cut = [group for group in document["groups"] if 0 < group["kept"] < group["units"]]
    widths = [(group["units"] * group["entries"], group["kept"] * group["entries"]) for group in cut]
    odd = sum(before % _BLOCK == 0 and after % _BLOCK != 0 for before, after in widths)
    if not odd:
        return None
    return (
        f"latency was not measured (--timing does): {odd} of {len(cut)} widths are no multiples of {_BLOCK} any "
        "more, which can be slower than the dense model; --round-to auto keeps to widths that are fast here"
    )


def output_error_line(document: Mapping[str, Any]) -> str | None:
    """Return a sentence on how far the outputs are off, with and without recovery; None where this was not measured.

    Args:
        document: of a pruning (`Result.to_dict`).

    """
    errors = document.get("output_errors")
    if errors is None:
        return None
    held_out = " held out" if errors["held_out"] else ""
    return (
        f"on {errors['samples']:,} samples{held_out} the outputs are off by {percent(errors['pruned'])}, "
        f"without recovery by {percent(errors['unrecovered'])}"
    )


def oracle_line(document: Mapping[str, Any], *, above: float = -1.0) -> str | None:
    """Return a sentence on what networks may differ by that should be the same; None where none were compared.

    Args:
        document: of a pruning or a factorisation.
        above: nothing is said of tolerances up to here.

    """
    oracle = document.get("oracle")
    if oracle is None or oracle["tolerance"] <= above:
        return None
    return (
        f"rounding alone moves the dense network by {oracle['rounding']:.1g}; networks that should be the same were "
        f"held to {oracle['tolerance']:.1g} of the largest value"
    )


def _accuracy_rows(document: Mapping[str, Any]) -> list[Row]:
    top1 = document.get("top1")
    if top1 is None:
        return []
    dense, pruned = (top1[model]["accuracy"] for model in ("dense", "pruned"))
    return [("top-1", f"{dense:.1%}", f"{pruned:.1%}", f"{100 * (pruned - dense):+.1f} points")]


def _timing_rows(document: Mapping[str, Any]) -> list[Row]:
    timing = document.get("timing")
    if timing is None:
        return []
    medians = (milliseconds(timing[model]["median_ms"]) for model in ("dense", "pruned"))
    return [("latency (median)", *medians, f"{timing['pruned']['ratio_to_first']:.1%}")]


def _latency_rows(document: Mapping[str, Any]) -> list[Row]:
    """Return a row where latency was the target and nothing else tells of it; the ratio is that of paired runs."""
    latency = document.get("latency")
    if latency is None or "timing" in document:
        return []
    dense_ms, pruned_ms = latency["dense_ms"], latency["pruned_ms"]
    return [("latency", f"{dense_ms:.3f} ms", f"{pruned_ms:.3f} ms", f"{latency['measured']:.1%}")]


def _operator_rows(dense: Mapping[str, int], pruned: Mapping[str, int]) -> list[Row]:
    names = sorted({*dense, *pruned})
    return [_compared(f"  {name}", dense.get(name, 0), pruned.get(name, 0), str) for name in names]


def _compared(name: str, dense: int, pruned: int, write: Callable[[int], str]) -> Row:
    return (name, write(dense), write(pruned), change(dense, pruned))


def _bytes(number: int) -> str:
    return count(number, "B")


def _lost_share(group: Mapping[str, Any], errors: Mapping[str, float]) -> str:
    """Return the share that the recovery leaves open, at the consumer where it is largest."""
    shares = [errors[consumer] for consumer in group["consumers"] if consumer in errors]
    return f"{max(shares):.1%}" if shares else "-"
