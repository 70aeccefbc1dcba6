"""What the user may choose: the target and how to reach it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx_subprune.errors import OptionError
from onnx_subprune.subspace import METHODS

__all__ = ["ALLOCATIONS", "AUTO", "COSTS", "EFFORTS", "RECOVERIES", "SELECTIONS", "TARGETS", "Options", "Target"]

TARGETS = ("macs", "params", "latency", "units", "variance", "drop")
COSTS = ("macs", "params", "latency")
"""What a target `drop` can make as small as possible; a target of the same name says how much of it may stay."""
AUTO = "auto"
SELECTIONS = METHODS
ALLOCATIONS = ("measured", "loss", "cutoff", "uniform")
RECOVERIES = ("exact", "channel", "none")

EFFORTS: Mapping[str, Mapping[str, Any]] = {
    "fast": {"recovery": "channel", "one_pass": True, "allocation": "uniform"},
    "balanced": {},
    "best": {"rows": 256, "trials": 2, "sweeps": 2},
}
"""What `Options.of_effort` changes of the defaults."""


@dataclass(frozen=True)
class Target:
    """The fraction of the original that may remain: of the `kind` macs, params, latency, units or variance.

    `latency` is what a run takes, measured on this machine.

    `units=0` removes the groups as a whole, and the branches that they are part of. `drop` is not what remains but
    by how much the metric may fall: the smallest network for which it does not fall further.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in TARGETS:
            raise OptionError(
                f"expected a target KIND=FRACTION with KIND one of {', '.join(TARGETS)}, found '{self.kind}'; "
                "for example macs=0.5"
            )
        if not 0.0 < self.value <= 1.0 and (self.kind, self.value) != ("units", 0.0):
            raise OptionError(
                f"expected a fraction above 0 and at most 1 in the target, found {self}; "
                f"for example {self.kind}=0.5 keeps half"
            )

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `macs=0.5`; OptionError if it does not look like that."""
        kind, separator, value = text.partition("=")
        try:
            return cls(kind.strip(), float(value))
        except ValueError:
            found = f"'{text}'" if separator else f"'{text}' without '='"
            raise OptionError(f"expected a target such as macs=0.5, found {found}; give KIND=FRACTION") from None


@dataclass(frozen=True)
class Options:
    """How a model is pruned.

    Attributes:
        target: what may remain.
        cost: what a target `drop` makes as small as it can, one of `COSTS`; None for MACs.
        select: the ordering of units, one of `SELECTIONS`.
        recovery: `exact` (every layer fitted on what it reads itself), `channel` (least squares per channel, the
            paper's) or `none`.
        allocation: how a target of MACs, parameters or latency is shared among the groups: by the least loss for the
            cost where losses are `measured` at the outputs or computed at the consumers (`loss`), by one `cutoff` of
            the share of variance (the paper's), or the same share of units everywhere (`uniform`).
        round_to: the widths of pruned axes are multiples of this where the group is large enough; `AUTO` for those that
            measurements on this machine say pay. A target of latency takes these in any case.
        ignore: globs over group, node and weight names; what matches is left whole.
        only: globs; when given, only groups that match are pruned.
        samples: how many calibration samples to use; None for all.
        seed: of every random choice.
        batch_size: samples per calibration run.
        one_pass: whether exact recovery fits layers to the inputs they have in the dense network, and not one after the
            other to those of the pruned one.
        prune_normalised: whether axes that a LayerNorm, RMSNorm or GroupNorm takes its statistics over may shrink.
        ridge: strength of the ridge in the least squares, relative to the mean second moment.
        providers: ONNX Runtime execution providers, short names allowed.
        threads: of ONNX Runtime; None for its default.
        input_shapes: sizes of dynamic inputs to count MACs with; taken from the data where not given.
        rows: rows for each feature that exact recovery fits a layer on, at most.
        probes: samples, held out, on which `measured` allocation runs the network with one group pruned.
        levels: the shares of units at which it does; at 0 the group is gone where it can be, and may go then.
        latency_batch: samples per run that latency is measured with; None for what the inputs are otherwise counted
            with, which is one sample unless `input_shapes` says otherwise.
        remeasure: whether to forget what was measured on this machine before.
        trials: how many allocations are carried out to take the best of them; 0 for the one that was computed.
        sweeps: how often exact recovery goes through all layers, at most; a sweep that does not help is not kept.

    """

    target: Target = field(default_factory=lambda: Target("macs", 0.5))
    cost: str | None = None
    select: str = "obs"
    recovery: str = "exact"
    allocation: str = "measured"
    round_to: int | str = 1
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    samples: int | None = None
    seed: int = 0
    batch_size: int = 32
    ridge: float = 1e-6
    one_pass: bool = False
    prune_normalised: bool = False
    providers: tuple[str, ...] = ("cpu",)
    threads: int | None = None
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    rows: int = 128
    probes: int = 16
    levels: tuple[float, ...] = (0.75, 0.0)
    trials: int = 0
    sweeps: int = 1
    latency_batch: int | None = None
    remeasure: bool = False

    @property
    def multiple(self) -> int:
        """What widths are multiples of in any case; multiples that were measured come on top."""
        return self.round_to if isinstance(self.round_to, int) else 1

    @classmethod
    def of_effort(cls, effort: str, **chosen: Any) -> Options:
        """Return the options of an effort, one of `EFFORTS`, with those that were `chosen` in their place.

        Raises:
            OptionError: there is no such effort, or a value is out of its range.

        """
        _one_of("effort", effort, tuple(EFFORTS))
        return cls(**{**EFFORTS[effort], **chosen})

    def __post_init__(self) -> None:
        _one_of("selection", self.select, SELECTIONS)
        _one_of("recovery", self.recovery, RECOVERIES)
        _one_of("allocation", self.allocation, ALLOCATIONS)
        if self.cost is not None:
            _one_of("cost", self.cost, COSTS)
            if self.target.kind != "drop":
                raise OptionError(
                    f"expected a cost with a target drop=F, found {self.target}, which names its own; leave --cost out"
                )
        if isinstance(self.round_to, str) and self.round_to != AUTO:
            raise OptionError(f"expected round-to of a number or '{AUTO}', found '{self.round_to}'; for example 8")
        for name in ("round_to", "batch_size", "samples", "threads", "rows", "probes", "latency_batch", "sweeps"):
            value = getattr(self, name)
            if value not in (None, AUTO) and value < 1:
                raise OptionError(
                    f"expected {name.replace('_', '-')} of 1 or more, found {value}; give a positive number"
                )
        if self.seed < 0:
            raise OptionError(f"expected a seed of 0 or more, found {self.seed}; any such number will do")
        if not 0 <= self.ridge < float("inf"):
            raise OptionError(f"expected a ridge of 0 or more, found {self.ridge}; for example 1e-6")


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(f"expected a {what} among {', '.join(allowed)}, found '{value}'; choose one of them")
