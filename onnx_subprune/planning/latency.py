"""The user's machine as the budget sees it: which multiples of units pay, and what a network takes at given widths.

A latency is predicted by a model that was fitted to networks cut to several widths, and measured by cutting the network
to the widths asked for: with the biases that recovery adds, but without values worked out, on which the time does not
depend. Everything measured is kept per machine, so that the next run decides alike.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx

from onnx_subprune import budget
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate import random_feeds
from onnx_subprune.latency import (
    FAMILIES,
    Decision,
    Effort,
    LatencyModel,
    Record,
    Times,
    families_of,
    kept,
    machine,
    measured_multiples,
    times,
)
from onnx_subprune.model import has_half, input_specs, model_bytes
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.rewrite import restructured, shrink
from onnx_subprune.options import Options
from onnx_subprune.progress import Progress
from onnx_subprune.structure import Structure
from onnx_subprune.subspace import corrected

__all__ = ["Clock", "LatencyMet", "Multiples", "fast_multiples", "known_multiples", "stepped", "timed_shapes"]

_logger = logging.getLogger(__name__)

_TOGETHER = 1 << 30
"""Bytes of models that are open at once."""
_LEARNING = Effort(20, 30.0)
_DECIDING = Effort(20, 2.0, sittings=3)
# Six sittings give an interval.
_CONFIRMING = Effort(20, 1.5, sittings=6)


@dataclass(frozen=True)
class Multiples:
    """Which multiples of channels pay, by kind of work, with what the user should know."""

    of: Mapping[str, int]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LatencyMet:
    """What a network that was pruned to a target of latency takes of the dense one's time.

    Attributes:
        predicted: by the latency model.
        measured: of the network that was given back.
        interval: what holds the measured ratio in 95 of 100 cases; None if too few runs were made.
        dense_ms: median time of the dense network.
        pruned_ms: of the pruned one.
        shapes: of the inputs it was measured with.
        providers: as asked for.
        threads: as asked for.
        multiples: of units that pay, by kind of work.
        error: root mean square of the latency model's relative errors at networks left out of its fit.

    """

    predicted: float
    measured: float
    interval: tuple[float, float] | None
    dense_ms: float
    pruned_ms: float
    shapes: Mapping[str, tuple[int, ...]]
    providers: tuple[str, ...]
    threads: int | None
    multiples: Mapping[str, int]
    error: float


def fast_multiples(model: onnx.ModelProto, options: Options, progress: Progress | None = None) -> Multiples:
    """Return which multiples pay where the options run the model, from the cache or measured now."""
    on_cpu = tuple(name.lower() for name in options.providers) in (("cpu",), ("cpuexecutionprovider",))
    dtype = "float16" if not on_cpu and has_half(model) else "float32"
    record = Record(
        "multiples", {**machine(options.providers, options.threads), "dtype": dtype}, anew=options.remeasure
    )
    found = _decisions(record)
    if found is None:
        found = measured_multiples(options.providers, options.threads, dtype, progress=progress)
        record.data = {family: vars(decision) for family, decision in found.items()}
        record.save()
    open_ones = [family for family, decision in found.items() if not decision.sure]
    unsure = (
        f"the measurements leave open which multiples pay for {', '.join(open_ones)}: the smallest were taken that are "
        "not slower; --remeasure on a quiet machine"
    )
    warnings = (*record.warnings, *([unsure] if open_ones else []))
    return Multiples({family: decision.multiple for family, decision in found.items()}, warnings)


def known_multiples() -> dict[str, dict[str, int]]:
    """Return the multiples that were measured on this machine before, by what they were measured with."""
    found = {}
    for key, data in kept("multiples"):
        threads = "all threads" if key.get("threads") is None else f"{key['threads']} threads"
        decided = _read(data)
        if decided is not None:
            where = ", ".join([*map(str, key.get("providers", ())), str(key.get("dtype")), threads])
            found[where] = {family: decision.multiple for family, decision in decided.items()}
    return found


def _digest(counts: Mapping[str, int]) -> str:
    return hashlib.sha256(json.dumps(sorted(counts.items())).encode()).hexdigest()[:20]


def _numbers(held: object) -> list[float]:
    """Return the ratios of an entry of the cache; none of what is damaged."""
    sound = isinstance(held, list) and all(isinstance(one, float) and math.isfinite(one) and one > 0 for one in held)
    return list(held) if isinstance(held, list) and sound else []


def _read(data: Mapping[str, Any]) -> dict[str, Decision] | None:
    try:
        return {family: Decision(int(one["multiple"]), bool(one["sure"])) for family, one in data.items()}
    except (KeyError, TypeError, ValueError):
        return None


def _decisions(record: Record) -> dict[str, Decision] | None:
    if not record.data:
        return None
    found = _read(record.data)
    if found is None:
        record.forget("a damaged entry")
        return None
    if set(found) != set(FAMILIES) or any(decision.multiple < 1 for decision in found.values()):
        record.forget("other entries")
        return None
    return found


def stepped(curves: Sequence[budget.Curve], structure: Structure, multiples: Mapping[str, int]) -> list[budget.Curve]:
    """Return the curves with widths that are multiples of what pays for all that makes and reads them."""
    groups = {group.name: group for group in structure.prunable}
    found = []
    for curve in curves:
        group = groups[curve.group]
        wanted = math.lcm(1, *(multiples[family] for family in families_of(group)))
        # A kernel sees the width of an axis; a unit may be many entries of it (an attention head).
        step = math.lcm(curve.round_to, wanted // math.gcd(wanted, group.entries))
        found.append(replace(curve, round_to=step))
    return found


def timed_shapes(analysis: Analysis, batch: int | None) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs that latency is measured with.

    Raises:
        OptionError: another batch is asked for than the model has.

    """
    shapes = dict(analysis.input_shapes)
    if batch is None:
        return shapes
    for spec in input_specs(analysis.model):
        if not spec.shape:
            continue
        if isinstance(spec.shape[0], int) and spec.shape[0] != batch:
            raise OptionError(
                f"expected a dynamic first axis to measure batches of {batch}, found {spec.shape[0]} in input "
                f"'{spec.name}'; leave --latency-batch out or export the model with a dynamic batch"
            )
        shapes[spec.name] = (batch, *shapes[spec.name][1:])
    return shapes


class Clock:
    """Predicts and measures what networks take, as a share of the dense network's time.

    Args:
        analysis: of the dense network.
        curves: of the groups that may be pruned; all others stay whole.
        options: where and how networks run.
        multiples: that pay.
        progress: called with the networks that were measured to learn from, and their number.

    """

    def __init__(
        self,
        analysis: Analysis,
        curves: Sequence[budget.Curve],
        options: Options,
        multiples: Multiples,
        *,
        progress: Progress | None = None,
    ) -> None:
        self._analysis = analysis
        self._options = options
        self._multiples = multiples
        self._progress = progress
        self._curves = curves
        self.shapes = timed_shapes(analysis, options.latency_batch)
        self._feeds = random_feeds(input_specs(analysis.model), self.shapes, options.seed)
        self._record = Record("latency", self._key(), anew=options.remeasure)

    @property
    def warnings(self) -> list[str]:
        """What the user should know of the measurements."""
        return [*self._multiples.warnings, *self._record.warnings]

    @cached_property
    def predicted(self) -> LatencyModel:
        """The predicted share of the dense network's time for given widths."""
        widths = budget.sampled_widths(self._curves)
        ratios = self._known(len(widths))
        if ratios is None:
            ratios = self._learnt(widths)
            self._record.data["sampled"] = ratios
            self._record.save()
        model = LatencyModel(self._analysis.structure, widths, ratios)
        _logger.info("the latency model is off by %.1f%% at networks left out of its fit", 100 * model.error)
        return model

    def measured(self, counts: Mapping[str, int], repeats: int = 1) -> float:
        """Return what the network with these widths really takes: the mean of so many measurements, of all if more."""
        ratios = self._held(counts)
        if len(ratios) < repeats:
            cut = self._cut(counts)
            ratios += [float(self._times([cut], _DECIDING).ratios[1]) for _ in range(repeats - len(ratios))]
            self._hold(counts, ratios)
        ratio = float(np.mean(ratios))
        _logger.info("latency: predicted %.4f, measured %.4f", self.predicted(counts), ratio)
        return ratio

    def remember(self, counts: Mapping[str, int], finished: LatencyMet) -> None:
        """Count the measurement of a finished network among those of its widths."""
        own = self._own(counts)
        self._hold(own, [*self._held(own), finished.measured])

    def _own(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the widths of the groups that may be pruned."""
        return {curve.group: counts[curve.group] for curve in self._curves}

    def _held(self, counts: Mapping[str, int]) -> list[float]:
        known = self._record.data.get("measured")
        return _numbers(known.get(_digest(counts))) if isinstance(known, dict) else []

    def _hold(self, counts: Mapping[str, int], ratios: list[float]) -> None:
        known = self._record.data.get("measured")
        self._record.data["measured"] = {**(known if isinstance(known, dict) else {}), _digest(counts): ratios}
        self._record.save()

    def confirmed(self, model: onnx.ModelProto, counts: Mapping[str, int]) -> LatencyMet:
        """Measure a finished network; `counts` are its widths."""
        options = self._options
        timed = self._times([model], _CONFIRMING)
        return LatencyMet(
            predicted=self.predicted(self._own(counts)),
            measured=float(timed.ratios[1]),
            interval=timed.interval(1),
            dense_ms=float(timed.milliseconds[0]),
            pruned_ms=float(timed.milliseconds[1]),
            shapes=self.shapes,
            providers=options.providers,
            threads=options.threads,
            multiples=dict(self._multiples.of),
            error=self.predicted.error,
        )

    def _key(self) -> dict[str, Any]:
        options, analysis = self._options, self._analysis
        return {
            **machine(options.providers, options.threads),
            "model": analysis.fingerprint,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "prune_normalised": options.prune_normalised,
            "effort": [asdict(_LEARNING), asdict(_DECIDING)],
            "recovered": options.recovery != "none",
            "groups": [[curve.group, curve.size, curve.round_to, curve.minimum] for curve in self._curves],
        }

    def _known(self, number: int) -> list[float] | None:
        """The ratios of the sampled networks in the cache; None where there are none."""
        held = self._record.data.get("sampled")
        if held is None:
            return None
        ratios = _numbers(held)
        if len(ratios) == number:
            return ratios
        self._record.forget("a damaged entry")
        return None

    def _learnt(self, widths: Sequence[Mapping[str, int]]) -> list[float]:
        """Measure the network at several widths, as many at once as memory allows."""
        together = max(1, _TOGETHER // max(1, model_bytes(self._analysis.model)) - 1)
        ratios: list[float] = []
        for start in range(0, len(widths), together):
            part = widths[start : start + together]
            effort = replace(_LEARNING, seconds=_LEARNING.seconds * len(part) / len(widths))
            models: list[onnx.ModelProto] = []
            for one in part:
                if self._progress is not None:
                    self._progress(start + len(models), len(widths))
                models.append(self._cut(one))
            ratios += [float(ratio) for ratio in self._times(models, effort).ratios[1:]]
            if self._progress is not None:
                self._progress(len(ratios), len(widths))
        return ratios

    def _times(self, models: Sequence[onnx.ModelProto], effort: Effort) -> Times:
        options = self._options
        dense = self._analysis.model
        return times([dense, *models], self._feeds, providers=options.providers, threads=options.threads, effort=effort)

    def _cut(self, counts: Mapping[str, int]) -> onnx.ModelProto:
        """The network with the first units of every group, and with the nodes that recovery would leave it with."""
        analysis = self._analysis
        bare = restructured(analysis)
        keeps = {
            group.atom: np.arange(group.size) < counts[group.name]
            for group in bare.prunable
            if counts.get(group.name, group.size) < group.size
        }
        biased = [] if self._options.recovery == "none" else corrected(bare, keeps)
        return shrink(analysis.normalised, bare, keeps, biased=biased, scratch=analysis.scratch)
