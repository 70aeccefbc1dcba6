"""Latencies of a network at given widths, as shares of the dense network's: predicted, measured, and confirmed.

A latency is predicted by a model that was fitted to networks cut to several widths, and measured by cutting the network
to the widths asked for: with the biases that recovery adds, but with no values worked out, on which the time does not
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
from typing import Any, NamedTuple

import numpy as np
import onnx

from onnx_subprune import budget
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.evaluate.feeds import made_up
from onnx_subprune.latency import Effort, LatencyModel, Record, Times, machine, times
from onnx_subprune.model import model_bytes
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.finishing import finish
from onnx_subprune.network.inputs import feeds_of
from onnx_subprune.network.rewrite import pruned_bare
from onnx_subprune.options import AUTO, Options, Target
from onnx_subprune.plan import Plan
from onnx_subprune.planning.width_multiples import WidthMultiples, fast_multiples, with_multiples
from onnx_subprune.progress import Progress, Watch, phase

__all__ = ["FastWidths", "LatencyMet", "LatencyMeter", "check_latency", "fast_widths", "misses_target", "timed_shapes"]

_logger = logging.getLogger(__name__)

_TOGETHER = 1 << 30
"""Bytes of models that are open at once."""
_LEARNING = Effort(20, 30.0)
_DECIDING = Effort(20, 2.0, sittings=3)
# Six sittings give an interval.
_CONFIRMING = Effort(20, 1.5, sittings=6)


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


class FastWidths(NamedTuple):
    """Curves of widths that are fast on this machine, and what measures latencies there, where these are asked for.

    Attributes:
        curves: of the groups that may be pruned.
        meter: of latencies; None where the target is not one.
        warnings: for the user, those of the meter excluded.

    """

    curves: list[budget.Curve]
    meter: LatencyMeter | None
    warnings: list[str]


def fast_widths(
    analysis: Analysis, curves: Sequence[budget.Curve], options: Options, progress: Watch | None = None
) -> FastWidths:
    """Return widths that are fast on this machine where the options ask for them, and what measures latencies.

    Args:
        analysis: of the dense network.
        curves: of the groups that may be pruned.
        options: a target of latency and `round_to="auto"` ask for fast widths; all else keeps the curves as they are.
        progress: called with the name of a phase, the steps done in it and their number.

    """
    timed = options.cost == "latency" or (options.target.kind == "latency" and options.target.value < 1.0)
    if not timed and options.round_to != AUTO:
        return FastWidths(list(curves), None, [])
    measuring = phase(progress, "measuring which widths are fast")
    multiples = fast_multiples(analysis.model, options.runtime, measuring, remeasure=options.remeasure)
    rounded = with_multiples(curves, analysis.structure, multiples.by_family)
    if not timed:
        return FastWidths(rounded, None, list(multiples.warnings))
    meter = LatencyMeter(analysis, rounded, options, multiples, progress=phase(progress, "measuring latencies"))
    return FastWidths(rounded, meter, [])


def misses_target(plan: Plan, latency: LatencyMet) -> bool:
    """Whether a finished network takes longer than the target of its plan allows.

    Args:
        plan: of the network.
        latency: measured of it.

    """
    return latency.measured > Target.parse(plan.target).value * (1 + budget.TOLERANCE)


def check_latency(options: Options, latency: LatencyMet) -> None:
    """Refuse a finished network that takes longer than was asked for, however often widths were chosen.

    Args:
        options: whose target of latency is held to; with any other, the network need only be no slower than the dense.
        latency: measured of it.

    Raises:
        TargetError: it takes longer; `nearest` is what it takes, at most 1.

    """
    timed = options.target.kind == "latency"
    if latency.measured <= (options.target.value * (1 + budget.TOLERANCE) if timed else 1.0):
        return
    nearest = min(math.ceil(latency.measured * 1e3) / 1e3, 1.0)
    advice = f"ask for latency={nearest:g} or more, or try again" if timed else "try again"
    raise TargetError(
        f"expected to reach {options.target}, but the finished network takes {latency.measured:.3f} of the time of the "
        f"dense one; {advice} when the machine is not noisy",
        nearest,
    )


def timed_shapes(analysis: Analysis, batch: int | None) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs that latency is measured with.

    Args:
        analysis: of the dense network.
        batch: samples per run; None for the sizes that MACs are counted with.

    Raises:
        OptionError: another batch is asked for than the model has.

    """
    shapes = dict(analysis.input_shapes)
    if batch is None:
        return shapes
    for spec in analysis.inputs:
        if not spec.shape:
            continue
        if isinstance(spec.shape[0], int) and spec.shape[0] != batch:
            raise OptionError(
                f"expected a dynamic first axis to measure batches of {batch}, found {spec.shape[0]} in input "
                f"'{spec.name}'; leave --latency-batch out or export the model with a dynamic batch"
            )
        shapes[spec.name] = (batch, *shapes[spec.name][1:])
    return shapes


class LatencyMeter:
    """Predicts and measures what networks take, as a share of the dense network's time.

    Args:
        analysis: of the dense network.
        curves: of the groups that may be pruned; all others stay whole.
        options: where and how networks run.
        multiples: of channels that pay.
        progress: called with the networks that were measured to learn from, and their number.

    """

    def __init__(
        self,
        analysis: Analysis,
        curves: Sequence[budget.Curve],
        options: Options,
        multiples: WidthMultiples,
        *,
        progress: Progress | None = None,
    ) -> None:
        self._analysis = analysis
        self._options = options
        self._multiples = multiples
        self._progress = progress
        self._curves = curves
        self.shapes = timed_shapes(analysis, options.latency_batch)
        self._feeds = feeds_of(analysis, self.shapes, options.seed)
        self._record = Record("latency", self._key(), anew=options.remeasure)

    @property
    def warnings(self) -> list[str]:
        """What the user should know of the measurements."""
        return [*self._multiples.warnings, *self._record.warnings]

    @cached_property
    def predicted(self) -> LatencyModel:
        """The predicted share of the dense network's time for given widths."""
        widths = budget.sampled_widths(self._curves)
        ratios = self._sampled_ratios(len(widths))
        if ratios is None:
            ratios = self._sample(widths)
            self._record.data["sampled"] = ratios
            self._record.save()
        model = LatencyModel(self._analysis.structure, widths, ratios)
        _logger.info("the latency model is off by %.1f%% at networks left out of its fit", 100 * model.error)
        return model

    def measure(self, widths: Mapping[str, int], repeats: int = 1) -> float:
        """Return the measured latency of the network with these widths, as a share of the dense network's.

        Args:
            widths: units of every group that may be pruned.
            repeats: measurements to take the mean of, those in the cache included; all of these where they are more.

        """
        ratios = self._cached_ratios(widths)
        if len(ratios) < repeats:
            cut = self._pruned_network(widths)
            ratios += [float(self._times([cut], _DECIDING).ratios[1]) for _ in range(repeats - len(ratios))]
            self._cache_ratios(widths, ratios)
        ratio = float(np.mean(ratios))
        _logger.info("latency: predicted %.4f, measured %.4f", self.predicted(widths), ratio)
        return ratio

    def remember(self, widths: Mapping[str, int], finished: LatencyMet) -> None:
        """Count the measurement of a finished network among those of its widths.

        Args:
            widths: units that stay, by name of the group.
            finished: the pruned network's share of the dense network's time.

        """
        prunable = self._prunable_widths(widths)
        self._cache_ratios(prunable, [*self._cached_ratios(prunable), finished.measured])

    def _prunable_widths(self, widths: Mapping[str, int]) -> dict[str, int]:
        """Return the widths of the groups that may be pruned."""
        return {curve.group: widths[curve.group] for curve in self._curves}

    def _cached_ratios(self, widths: Mapping[str, int]) -> list[float]:
        measured = self._record.data.get("measured")
        return _sound_ratios(measured.get(_digest(widths))) if isinstance(measured, dict) else []

    def _cache_ratios(self, widths: Mapping[str, int], ratios: list[float]) -> None:
        measured = self._record.data.get("measured")
        self._record.data["measured"] = {**(measured if isinstance(measured, dict) else {}), _digest(widths): ratios}
        self._record.save()

    def confirm(self, model: onnx.ModelProto, widths: Mapping[str, int]) -> LatencyMet:
        """Measure a finished network.

        Args:
            model: that is given back.
            widths: of all its groups.

        """
        options = self._options
        timed = self._times([model], _CONFIRMING)
        return LatencyMet(
            predicted=self.predicted(self._prunable_widths(widths)),
            measured=float(timed.ratios[1]),
            interval=timed.interval(1),
            dense_ms=float(timed.milliseconds[0]),
            pruned_ms=float(timed.milliseconds[1]),
            shapes=self.shapes,
            providers=options.providers,
            threads=options.threads,
            multiples=dict(self._multiples.by_family),
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

    def _sampled_ratios(self, number: int) -> list[float] | None:
        """The ratios of the sampled networks in the cache; None where there are none."""
        sampled = self._record.data.get("sampled")
        if sampled is None:
            return None
        ratios = _sound_ratios(sampled)
        if len(ratios) == number:
            return ratios
        self._record.forget("a damaged entry")
        return None

    def _sample(self, widths: Sequence[Mapping[str, int]]) -> list[float]:
        """Measure the network at several widths, as many at once as memory allows."""
        together = max(1, _TOGETHER // max(1, model_bytes(self._analysis.model)) - 1)
        ratios: list[float] = []
        for start in range(0, len(widths), together):
            part = widths[start : start + together]
            effort = replace(_LEARNING, seconds=_LEARNING.seconds * len(part) / len(widths))
            models: list[onnx.ModelProto] = []
            for network_widths in part:
                if self._progress is not None:
                    self._progress(start + len(models), len(widths))
                models.append(self._pruned_network(network_widths))
            ratios += [float(ratio) for ratio in self._times(models, effort).ratios[1:]]
            if self._progress is not None:
                self._progress(len(ratios), len(widths))
        return ratios

    def _times(self, models: Sequence[onnx.ModelProto], effort: Effort) -> Times:
        options = self._options
        dense = self._analysis.model
        networks = [dense, *models]
        with made_up(made=not self._analysis.sample):
            return times(networks, self._feeds, providers=options.providers, threads=options.threads, effort=effort)

    def _pruned_network(self, widths: Mapping[str, int]) -> onnx.ModelProto:
        """The network with the first units of every group, and with the nodes that recovery would leave it with."""
        bare = pruned_bare(self._analysis, widths, biased=self._options.recovery != "none")
        return finish(bare, self._analysis)


def _digest(widths: Mapping[str, int]) -> str:
    return hashlib.sha256(json.dumps(sorted(widths.items())).encode()).hexdigest()[:20]


def _sound_ratios(entry: object) -> list[float]:
    """Return the ratios of an entry of the cache; none where it is damaged."""
    if not isinstance(entry, list):
        return []
    sound = all(isinstance(ratio, float) and math.isfinite(ratio) and ratio > 0 for ratio in entry)
    return list(entry) if sound else []
