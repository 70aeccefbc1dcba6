"""How long a run will take and how much memory, by phase, from what a rehearsal showed.

What the rehearsal measured is multiplied by how often the run does it: samples calibrated on, groups ranked and probed,
allocations tried. The fits alone are too long to be rehearsed; they are counted. A sweep of fits runs both networks on
N samples, copies rows of every layer out, takes their products, opens sessions for the segments, and solves:

    a (1 + s) N t_run + b s sum r f (f g + o) t_product + c s^1/2 sum r (f g + o) t_copy + d L t_open
        + e s^3/2 sum f² (f g + o) t_product

with s the share of the network that stays, and r rows, g blocks of f features and o outputs of L layers. The factors a
to e say how often a step passes over its numbers: they belong to the code of the fits and not to the machine. They were
found from the terms and the truth that `tools/bench_forecast.py` prints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from onnx_subprune.calibration import DEFAULT_MAX_BYTES, HELD
from onnx_subprune.network.inputs import SCARCE
from onnx_subprune.options import Options
from onnx_subprune.planning.rehearsal import Rehearsal
from onnx_subprune.planning.study import SHARED_TARGETS
from onnx_subprune.recovery.exact import FitSize

__all__ = ["Expected", "Forecast", "Work", "forecast"]

_RUNS, _PRODUCTS, _COPIES, _OPENINGS, _SOLUTIONS = 2.8, 2.3, 9.0, 0.12, 5.0
# Allocations that differ, of the six that are offered to be tried.
_CANDIDATES = 4.5
# The knapsack runs once for the target and twice for the candidates; what was measured makes branches go, one by one.
_SHARINGS = 3.5
_CHECKS = 2.0
# Networks that the outputs are compared of: by channel, fitted, and without recovery.
_COMPARISONS = 4
_PORTION = 4
_SEARCHED = 8
"""Networks that a search for a target `drop` makes at most."""
_STORED_BYTES = 1 << 29
_ROW_BYTES = 1 << 28
_LIVE = 3
"""Tensors of the largest size that wait between segments at once."""


@dataclass(frozen=True)
class Expected:
    """What a phase is expected to take.

    Attributes:
        seconds: of the phase alone.
        bytes: of the whole process, at the peak of the phase.

    """

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Forecast:
    """What a run is expected to take.

    Attributes:
        phases: by the name that progress tells, in their order.
        unforeseen: what the run measures by the clock beside them, which is not in the forecast.
        spilled_bytes: of activations that are written to the temporary folder.

    """

    phases: Mapping[str, Expected] = field(default_factory=dict)
    unforeseen: tuple[str, ...] = ()
    spilled_bytes: int = 0

    @property
    def seconds(self) -> float:
        """Of all phases."""
        return math.fsum(phase.seconds for phase in self.phases.values())

    @property
    def bytes(self) -> int:
        """Of the process, at its peak."""
        return max((phase.bytes for phase in self.phases.values()), default=0)


@dataclass(frozen=True)
class Work:
    """How much there is to do.

    Attributes:
        spent: seconds of the phases that are done.
        samples: of the calibration.
        units: of each group that may be pruned.
        rehearsed: options that the rehearsal went by.
        calibrates: whether statistics are taken; else they are there.
        fits: returns what exact recovery fits, for some options and samples.

    """

    spent: Mapping[str, float]
    samples: int
    units: tuple[int, ...]
    rehearsed: Options
    calibrates: bool
    fits: Callable[[Options, int], FitSize]


def forecast(work: Work, rehearsal: Rehearsal, options: Options) -> Forecast:
    """Return what a run with these options is expected to take.

    Args:
        work: how much there is to do.
        rehearsal: the seconds of its parts.
        options: of the run; those that a time limit lowers may differ from the ones that were rehearsed.

    """
    return _Model(work, rehearsal, options).forecast()


@dataclass(frozen=True)
class _Model:
    """The costs of one run."""

    work: Work
    rehearsal: Rehearsal
    options: Options

    def forecast(self) -> Forecast:
        """Return all phases that the options ask for."""
        seconds = {
            **self.work.spent,
            "calibrating": self._calibrating(),
            "ranking units": self._ranking(),
            "measuring sensitivities": self._measuring(),
            "sharing out the target": self._searches * self._sharing(),
            "trying allocations": self._searches * self._trying(),
            "removing units": self._searches * self._removing(),
            "fitting layers": self._searches * self._fitting(),
            "verifying": _CHECKS * (self.rehearsal.cutting + self.rehearsal.opening),
            "measuring the fall": self._falls(),
        }
        phases = {name: Expected(time, self._bytes(name)) for name, time in seconds.items() if time > 0.0}
        return Forecast(phases, self._unforeseen(), self._spilled_bytes())

    @property
    def _samples(self) -> int:
        return min(self.options.samples or self.work.samples, self.work.samples)

    @property
    def _searches(self) -> int:
        return _SEARCHED if self.options.target.kind == "drop" else 1

    @property
    def _stays(self) -> float:
        """The share of the network that stays: the target's, as far as it says."""
        return self.options.target.value if self.options.target.kind in ("macs", "params", "latency", "units") else 0.5

    @property
    def _measures(self) -> bool:
        target = self.options.target
        return self.options.allocation == "measured" and target.kind in SHARED_TARGETS and target.value < 1.0

    @property
    def _judged(self) -> int:
        """Samples that recovered networks are compared on."""
        held = self._samples // HELD or self._samples
        return min(_PORTION * self.options.probes, held)

    def _calibrating(self) -> float:
        if not self.work.calibrates:
            return 0.0
        rehearsal = self.rehearsal
        # Where rows are scarce, statistics are taken once more, without the samples held out.
        scarce = self.options.recovery == "exact" and rehearsal.rows * self._samples < SCARCE
        passes = rehearsal.passes * (2 - 1 / HELD if scarce else 1)
        return rehearsal.before_calibrating + rehearsal.calibrating * passes * self._samples

    def _ranking(self) -> float:
        cubes = sum(float(units) ** 3 for units in self.work.units)
        growth = cubes / (self.rehearsal.ranked_cubes * len(self.work.units))
        # A group takes its time for being one; only wide ones take what their size says.
        linear = self.rehearsal.ranking * len(self.work.units)
        return max(linear, linear * growth if self.rehearsal.ranked_cubes >= 256.0**3 else 0.0)

    def _measuring(self) -> float:
        if not self._measures:
            return 0.0
        first, now = self.work.rehearsed, self.options
        runs = len(first.levels) * first.probes - len(now.levels) * now.probes
        each = self.rehearsal.probing - max(0, runs) * self.rehearsal.inference / 2
        each = max(each, self.rehearsal.probing / 10) * len(now.levels) / len(first.levels)
        return each * len(self.work.units) + self._compared

    @property
    def _compared(self) -> float:
        """Seconds of one network that is compared with the dense one."""
        return self._judged * self.rehearsal.inference + self.rehearsal.opening

    def _sharing(self) -> float:
        return _SHARINGS * self.rehearsal.sharing

    def _trying(self) -> float:
        return _CANDIDATES * (self.rehearsal.cutting + self._compared) if self._measures else 0.0

    def _removing(self) -> float:
        # The references of all comparisons are run here, where losses are not measured.
        compared = 0.0 if self._fits else self.rehearsal.cutting + 3 * self._compared
        return self.rehearsal.cutting + compared

    @property
    def _fits(self) -> int:
        """Sweeps over all layers."""
        if self.options.recovery != "exact":
            return 0
        return max(self.options.trials if self._measures and self._searches == 1 else 0, 1) + self.options.sweeps - 1

    def _fitting(self) -> float:
        if not self._fits:
            return 0.0
        factors = (_RUNS, _PRODUCTS, _COPIES, _OPENINGS, _SOLUTIONS)
        sweep = sum(factor * term for factor, term in zip(factors, self.terms(), strict=True))
        return self._fits * (sweep + self.rehearsal.cutting) + _COMPARISONS * self._compared

    def terms(self) -> tuple[float, float, float, float, float]:
        """Return the seconds that a sweep of fits would take if each of its five parts passed over its numbers once."""
        size = self.work.fits(self.options, self._samples)
        stays, rehearsal = self._stays, self.rehearsal
        products = sum(each.rows * each.features * (each.features * each.blocks + each.outputs) for each in size.layers)
        entries = sum(each.rows * (each.features * each.blocks + each.outputs) for each in size.layers)
        solved = sum(float(each.features) ** 2 * (each.features * each.blocks + each.outputs) for each in size.layers)
        return (
            (1 + stays) * size.samples * rehearsal.inference,
            stays * products * rehearsal.product,
            math.sqrt(stays) * entries * rehearsal.copying,
            len(size.layers) * rehearsal.opening,
            stays**1.5 * solved * rehearsal.product,
        )

    def _falls(self) -> float:
        if self.options.target.kind != "drop":
            return 0.0
        return (1 + _SEARCHED * self._stays) * self._samples * self.rehearsal.inference

    def _unforeseen(self) -> tuple[str, ...]:
        timed = self.options.target.kind == "latency" or self.options.cost == "latency"
        return ("measuring latencies",) if timed or self.options.round_to == "auto" else ()

    def _waiting_bytes(self) -> float:
        """Return what the dense network's activations between two segments take."""
        return _LIVE * self.rehearsal.tapped_bytes[1] * self.work.fits(self.options, self._samples).samples

    def _spilled_bytes(self) -> int:
        over = max(0.0, self._waiting_bytes() - _STORED_BYTES) if self._fits else 0.0
        return round((1 + self._stays) * over)

    def _bytes(self, phase: str) -> int:
        """Return the memory of the process in a phase: what it takes now, and what the phase holds."""
        rehearsal = self.rehearsal
        base, (tapped, _) = rehearsal.resident_bytes, rehearsal.tapped_bytes
        if phase in self.work.spent:
            return base
        if phase == "calibrating":
            together = min(tapped * self.options.batch_size, DEFAULT_MAX_BYTES)
            return round(base + 2 * rehearsal.gram_bytes + 3 * together)
        if phase == "fitting layers":
            each = min(self._waiting_bytes(), _STORED_BYTES)
            return round(base + rehearsal.gram_bytes + (1 + self._stays) * each + min(each, _ROW_BYTES))
        return round(base + 2 * rehearsal.gram_bytes)
