"""Before the long work: a forecast of the run, and what is left out where it would pass a limit of time.

What costs least accuracy for the seconds that it saves goes first. On small networks half of 2,048 images cost a few
hundredths of a point, a quarter a tenth, a second level of measured losses about as much for less time, and fits on 32
rows a feature a quarter of a point. Measured losses as such are worth every second, and stay. What comes after that is
for limits that nothing else meets. A step that turns out not to be needed beside later ones is taken back.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnx_subprune.calibration import Dataset
from onnx_subprune.errors import SubpruneError
from onnx_subprune.formatting import count, duration
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options
from onnx_subprune.planning.forecast import Forecast, Work, forecast
from onnx_subprune.planning.rehearsal import rehearse
from onnx_subprune.progress import NOTE, now
from onnx_subprune.recovery import settings
from onnx_subprune.recovery.exact import FitSize, FitSizes
from onnx_subprune.structure import Group

__all__ = ["Prospect", "foresee", "within"]

_logger = logging.getLogger(__name__)

_SHARE = 0.85
"""So much of the limit is planned for: a forecast is good to a third."""
_SAVING = 0.01
"""A step that saves a smaller share is no help."""
_WORTH_MACS, _WORTH_GROUPS = 10**9, 30
"""With fewer MACs over all samples, and fewer groups, a run takes seconds: nobody wants to know how many."""
_WORTH_SAMPLES = 128
"""Eight times those of a rehearsal."""
_SHOWN_SECONDS = 10.0

_STEPS: Sequence[dict[str, Any]] = (
    {"trials": 0},
    {"sweeps": 1},
    {"rows": 128},
    {"samples": 4096},
    {"samples": 2048},
    {"samples": 1024},
    {"samples": 512},
    {"rows": 64},
    {"levels": 1},
    {"rows": 32},
    {"probes": 8},
    {"samples": 256},
    {"recovery": "channel"},
    {"samples": 128},
    {"probes": 4},
)
"""What is lowered, and to what, those first that cost least accuracy for a second."""


@dataclass(frozen=True)
class Prospect:
    """What a run will be.

    Attributes:
        options: of the run.
        forecast: of it; None where none was made.
        left_out: what a limit of time leaves out, a line each.
        warnings: for the user.

    """

    options: Options
    forecast: Forecast | None = None
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def foresee(
    analysis: Analysis,
    groups: Sequence[Group],
    dataset: Dataset | None,
    options: Options,
    read: float,
    *,
    calibrates: bool = True,
    fixed: bool = False,
) -> Prospect:
    """Return what the run will take, with options that keep to its limit of time.

    Args:
        analysis: of the dense network.
        groups: that may be pruned.
        dataset: calibration samples; without them nothing is foreseen.
        options: as they were given.
        read: seconds that reading the model took.
        calibrates: whether statistics are taken; else they are there.
        fixed: whether the samples cannot be fewer, because the caller opened them.

    """
    nothing = _unforeseen(options)
    samples = None if dataset is None else dataset.samples
    if dataset is None or samples is None or not groups or not _is_long(analysis, groups, samples, options):
        return nothing
    start = now()
    rehearsal = rehearse(analysis, groups, dataset, options)
    if rehearsal is None:
        return nothing
    fits = _fit_sizes(analysis, dataset, options)
    spent = {"reading the model": read, "forecasting": now() - start}
    work = Work(spent, samples, tuple(group.size for group in groups), options, calibrates, fits)
    prospect = within(options, samples, lambda chosen: forecast(work, rehearsal, chosen), fixed=fixed or not calibrates)
    _tell(prospect)
    return replace(prospect, warnings=(*prospect.warnings, *_little_room(prospect.forecast)))


def within(options: Options, samples: int, foreseen: Callable[[Options], Forecast], *, fixed: bool = False) -> Prospect:
    """Return options whose forecast keeps to their limit of time, as far as any do.

    Args:
        options: as they were given; without a limit they stay.
        samples: of the calibration.
        foreseen: returns the forecast for other options.
        fixed: whether the samples cannot be fewer.

    """
    whole, limit = foreseen(options), options.time_limit
    if limit is None or whole.seconds <= _SHARE * limit:
        return Prospect(options, whole)
    steps, best = _needed(options, samples, foreseen, fixed=fixed)
    chosen = _taken(options, steps)
    left_out = tuple(_left_out(options, chosen, samples))
    replay = "" if chosen.samples == options.samples else f"; to replay its plan give --samples {chosen.samples}"
    warnings = [_SHORTENED.format(duration(limit), "; ".join(left_out), replay)] if left_out else []
    if best.seconds > limit:
        warnings.append(_LONGER.format(duration(best.seconds), duration(limit)))
    return Prospect(chosen, best, left_out, tuple(warnings))


_SHORTENED = "to keep to {} the run leaves out: {}{}"
_NO_ROOM = (
    "activations may take up to {} of the temporary folder '{}', which has room for {}; name another with TMPDIR, or "
    "use fewer samples"
)
_LONGER = "the run is expected to take {}, more than the {} of --time-limit, with nothing more to leave out"


def _needed(
    options: Options, samples: int, foreseen: Callable[[Options], Forecast], *, fixed: bool
) -> tuple[list[dict[str, Any]], Forecast]:
    """Return the steps that bring a run within its limit, or all that help where none do; and its forecast."""
    limit = _SHARE * (options.time_limit or 0.0)
    steps: list[dict[str, Any]] = []
    best = foreseen(options)
    for step in _STEPS:
        if best.seconds <= limit:
            break
        if not _lowers(_taken(options, steps), step, samples, fixed=fixed):
            continue
        shorter = foreseen(_taken(options, [*steps, step]))
        if shorter.seconds < (1.0 - _SAVING) * best.seconds:
            steps.append(step)
            best = shorter
    for step in reversed(steps[:-1]):
        others = [other for other in steps if other is not step]
        longer = foreseen(_taken(options, others))
        if longer.seconds <= limit:
            steps, best = others, longer
    return steps, best


def _lowers(options: Options, step: dict[str, Any], samples: int, *, fixed: bool) -> bool:
    ((name, value),) = step.items()
    if name == "recovery":
        return options.recovery == "exact"
    if name == "levels":
        return len(options.levels) > int(value)
    if name == "samples":
        return not fixed and min(options.samples or samples, samples) > int(value)
    return bool(getattr(options, name) > value)


def _taken(options: Options, steps: Sequence[dict[str, Any]]) -> Options:
    changes = {name: value for step in steps for name, value in step.items()}
    if "levels" in changes:
        changes["levels"] = options.levels[: changes["levels"]]
    return replace(options, **changes)


def _left_out(options: Options, chosen: Options, samples: int) -> list[str]:
    """Return what was lowered, in words."""
    lines = []
    for name in dict.fromkeys(name for step in _STEPS for name in step):
        before, after = getattr(options, name), getattr(chosen, name)
        if before != after:
            lines.append(f"{name} {_written(after)} in the place of {_written(before or samples)}")
    return lines


def _written(value: Any) -> str:
    return ", ".join(f"{level:g}" for level in value) if isinstance(value, tuple) else str(value)


def _little_room(foreseen: Forecast | None) -> Iterator[str]:
    """Yield a warning where the temporary folder may not hold the activations that do not fit into memory."""
    folder = tempfile.gettempdir()
    room = shutil.disk_usage(folder).free
    if foreseen is not None and foreseen.spilled_bytes > room:
        yield _NO_ROOM.format(count(foreseen.spilled_bytes, "B"), folder, count(room, "B"))


def _unforeseen(options: Options) -> Prospect:
    if options.time_limit is None:
        return Prospect(options)
    line = f"there is no forecast to keep to the {duration(options.time_limit)} of --time-limit by; nothing is left out"
    return Prospect(options, warnings=(line,))


def _is_long(analysis: Analysis, groups: Sequence[Group], samples: int, options: Options) -> bool:
    """Whether the user wants to know how long it takes, and a rehearsal is a small part of it.

    A run that neither measures losses nor fits layers takes a few inferences; a rehearsal takes a few samples.
    """
    if options.time_limit is not None:
        return True
    if samples < _WORTH_SAMPLES or (options.allocation != "measured" and options.recovery != "exact"):
        return False
    return analysis.cost.macs * samples >= _WORTH_MACS or len(groups) >= _WORTH_GROUPS


def _fit_sizes(analysis: Analysis, dataset: Dataset, options: Options) -> Callable[[Options, int], FitSize]:
    """Return what says how much there is to fit; nothing where the layers cannot be looked at."""
    if options.recovery != "exact":
        return lambda _, samples: FitSize(samples, ())
    try:
        sizes = FitSizes(analysis.normalised, dataset, settings(options))
    except SubpruneError as error:
        _logger.info("fits are not in the forecast: %s", error)
        return lambda _, samples: FitSize(samples, ())
    return lambda chosen, samples: sizes.at(samples, settings(chosen))


def _tell(prospect: Prospect) -> None:
    foreseen = prospect.forecast
    if foreseen is None:
        return
    shown = foreseen.seconds >= _SHOWN_SECONDS or prospect.options.time_limit is not None
    phases = ", ".join(
        f"{name} {duration(phase.seconds)}"
        for name, phase in foreseen.phases.items()
        if phase.seconds >= 0.02 * foreseen.seconds
    )
    beside = f", beside {', '.join(foreseen.unforeseen)}" if foreseen.unforeseen else ""
    memory = count(foreseen.bytes, "B")
    line = "expected to take %s and %s of memory%s: %s"
    _logger.log(NOTE if shown else logging.INFO, line, duration(foreseen.seconds), memory, beside, phases)
