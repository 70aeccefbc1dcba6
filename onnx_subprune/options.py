"""What the user may choose: the target and how to reach it."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnx_subprune.errors import OptionError
from onnx_subprune.subspace import METHODS

__all__ = ["ALLOCATIONS", "RECOVERIES", "SELECTIONS", "TARGETS", "Options", "Target"]

TARGETS = ("macs", "params", "units", "variance")
SELECTIONS = METHODS
ALLOCATIONS = ("cutoff", "loss", "uniform")
RECOVERIES = ("exact", "channel", "none")


@dataclass(frozen=True)
class Target:
    """The fraction of the original that may remain: of the `kind` macs, params, units or variance.

    `units=0` removes the groups as a whole, and the branches that they are part of.
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
        select: the ordering of units, one of `SELECTIONS`.
        recovery: `channel` (least squares per channel, the paper's) or `none`.
        allocation: how a target of MACs or parameters is shared among the groups: by one `cutoff` of the share of
            variance, by the least `loss` for the cost, or the same share of units everywhere (`uniform`).
        recovery: `exact` (least squares of every layer on its own patches), `channel` (on one value per channel and
            position, the paper's) or `none`.
        one_pass: whether exact recovery fits all layers to the inputs of the dense network, and not, one after the
            other, to those of the network as it is pruned so far.
        round_to: the widths of pruned axes are multiples of this where the group is large enough.
        ignore: globs over group, node and weight names; what matches is left whole.
        only: globs; when given, only groups that match are pruned.
        samples: how many calibration samples to use; None for all.
        seed: of every random choice.
        batch_size: samples per calibration run.
        prune_normalised: whether axes that a LayerNorm, RMSNorm or GroupNorm takes its statistics over may shrink.
        ridge: strength of the ridge in the least squares, relative to the mean second moment.
        providers: ONNX Runtime execution providers, short names allowed.
        threads: of ONNX Runtime; None for its default.
        input_shapes: sizes of dynamic inputs to count MACs with; taken from the data where not given.

    """

    target: Target = field(default_factory=lambda: Target("macs", 0.5))
    select: str = "zca"
    recovery: str = "channel"
    allocation: str = "cutoff"
    round_to: int = 1
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

    def __post_init__(self) -> None:
        _one_of("selection", self.select, SELECTIONS)
        _one_of("recovery", self.recovery, RECOVERIES)
        _one_of("allocation", self.allocation, ALLOCATIONS)
        for name in ("round_to", "batch_size", "samples", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
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
