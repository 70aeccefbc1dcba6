"""What the user may choose: the target and how to reach it.

The text that explains an option stands once, beside its field: `metadata["help"]` is the line that the command line
shows, and together with `metadata["details"]` it becomes the docstring of the class.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, fields, replace
from typing import Any, TypeVar, cast

from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.model import Runtime
from onnx_subprune.subspace import METHODS

__all__ = [
    "ALLOCATIONS",
    "AUTO",
    "COSTS",
    "EFFORTS",
    "RECOVERIES",
    "SELECTIONS",
    "TARGETS",
    "Options",
    "RecoveryOptions",
    "Target",
]

_T = TypeVar("_T")

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

    Attributes:
        kind: one of `TARGETS`.
        value: the fraction, or the fall of the metric for `drop`.

    Raises:
        OptionError: there is no such kind, or the value is out of its range.

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

    def out_of_reach(self, smallest: str, share: float) -> TargetError:
        """Return the error that says which fraction can be met.

        Args:
            smallest: the smallest network, in words.
            share: the fraction that it leaves.

        >>> print(Target("macs", 0.5).out_of_reach("layers of rank 1", 0.6123))
        expected to reach macs=0.5, but layers of rank 1 leave 0.6123 of the macs; ask for macs=0.6123 or more

        """
        nearest = math.ceil(share * 1e4) / 1e4
        # Rewriting a network can cost more than it saves; a fraction above 1 cannot be asked for.
        advice = f"ask for {self.kind}={nearest:.4f} or more" if nearest <= 1.0 else "leave the network as it is"
        return TargetError(
            f"expected to reach {self}, but {smallest} leave {nearest:.4f} of the {self.kind}; {advice}", nearest
        )

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target that a text such as `macs=0.5` stands for.

        Args:
            text: KIND=FRACTION, as on the command line.

        Raises:
            OptionError: the text has no `=`, the fraction is no number or out of its range, or there is no such kind.

        >>> Target.parse("macs=0.5")
        Target(kind='macs', value=0.5)

        """
        kind, separator, value = text.partition("=")
        try:
            return cls(kind.strip(), float(value))
        except ValueError:
            quoted = f"'{text}'" if separator else f"'{text}' without '='"
            raise OptionError(f"expected a target such as macs=0.5, found {quoted}; give KIND=FRACTION") from None


def _option(default: _T, text: str, details: str = "") -> _T:
    """Return a field with a default, the line that explains it, and what a docstring adds to that."""
    return field(default=default, metadata=_texts(text, details))


def _texts(text: str, details: str = "") -> dict[str, str]:
    return {"help": text, "details": details}


def _documented(options: type[_T]) -> type[_T]:
    """Give a class of options a docstring that explains every field."""
    lines = []
    for option in fields(cast("Any", options)):
        text = f"{option.name}: {option.metadata['help']} {option.metadata['details']}".strip()
        lines.append(textwrap.fill(text, 112, initial_indent=" " * 4, subsequent_indent=" " * 8))
    options.__doc__ = "\n".join([f"{(options.__doc__ or '').strip()}\n", "Attributes:", *lines, ""])
    return options


@_documented
@dataclass(frozen=True, kw_only=True)
class RecoveryOptions:
    """How units are ranked, recovered and compared: all that a plan keeps of the options."""

    select: str = _option("obs", f"How units are ranked: {', '.join(SELECTIONS)}.")
    recovery: str = _option(
        "exact",
        f"How consumers make up for removed units: {', '.join(RECOVERIES)}.",
        "exact fits every layer on what it reads itself, channel is least squares per channel, as in the paper.",
    )
    ridge: float = _option(
        1e-6, "Relative ridge of the least squares.", "It is relative to the mean second moment of the features."
    )
    prune_normalised: bool = _option(
        False,
        "Let axes shrink that a LayerNorm, RMSNorm or GroupNorm takes its statistics over, "
        "such as the residual stream of a transformer.",
    )
    one_pass: bool = _option(
        False,
        "Fit layers to the inputs of the dense network, or one after the other to those of the pruned one.",
        "True takes those of the dense network.",
    )
    rows: int = _option(128, "Rows for each feature that exact recovery fits a layer on, at most.")
    probes: int = _option(
        16,
        "Samples, held out, on which measured allocation runs the network with one group pruned.",
        "Recovered networks are compared on four times as many.",
    )
    sweeps: int = _option(
        1,
        "How often exact recovery goes through all layers, as long as it helps.",
        "A sweep that does not help is not kept.",
    )
    outputs_at: tuple[str, ...] = _option(
        (),
        "Compare networks at this tensor of the model, in the place of those that follow from its outputs; repeatable.",
        "It stays whole, as an output does. Where a plan is applied, none stand for those of the plan.",
    )

    def __post_init__(self) -> None:
        _check_choice("selection", self.select, SELECTIONS)
        _check_choice("recovery", self.recovery, RECOVERIES)
        _check_positive(self, "rows", "probes", "sweeps")
        if not 0 <= self.ridge < float("inf"):
            raise OptionError(f"expected a ridge of 0 or more, found {self.ridge}; for example 1e-6")


@_documented
@dataclass(frozen=True)
class Options(RecoveryOptions):
    """How a model is pruned; a value out of its range raises OptionError."""

    target: Target = field(
        default=Target("macs", 0.5),
        metadata=_texts(f"Fraction of the original that may remain: {', '.join(f'{kind}=F' for kind in TARGETS)}."),
    )
    _: KW_ONLY
    cost: str | None = _option(
        None, f"What a target drop=F makes as small as it can: {', '.join(COSTS)}.", "None stands for macs."
    )
    allocation: str = _option(
        "measured",
        f"How macs=F, params=F and latency=F are shared among groups: {', '.join(ALLOCATIONS)}.",
        "By the least loss for the cost, where losses are measured at the outputs or computed at the consumers (loss); "
        "by one cutoff of the share of variance, as in the paper; or the same share of units everywhere (uniform).",
    )
    round_to: int | str | None = _option(
        None,
        f"Keep multiples of N channels; '{AUTO}': those that are fast on this machine, measured. By default 8 (on GPUs "
        "8 in half precision, else 4) for macs=F and drop=F, less in narrow layers, and 1 for all other targets.",
        "A target of latency measures what is fast in any case. Groups that are smaller than a number stay whole.",
    )
    ignore: tuple[str, ...] = _option((), "Leave groups whole that match by name, node, weight or module; repeatable.")
    only: tuple[str, ...] = _option((), "Prune only groups that match; repeatable.")
    samples: int | None = _option(None, "Use this many samples; all by default.")
    seed: int = _option(0, "Of every random choice.")
    batch_size: int = _option(32, "Samples per run.")
    providers: tuple[str, ...] = _option(
        ("cpu",),
        "ONNX Runtime execution providers (cpu, cuda, ...), most wanted first; repeat, or separate by commas.",
    )
    threads: int | None = _option(None, "Threads of ONNX Runtime; its own choice by default.")
    custom_ops: tuple[str, ...] = _option(
        (),
        "A library of custom operators, or onnxruntime_extensions for that package's; runs its code; repeatable.",
        "Sessions of this process know its operators from then on.",
    )
    input_shapes: tuple[tuple[str, tuple[int, ...]], ...] = _option(
        (),
        "Sizes of a dynamic input, such as x:1,3,224,224; repeatable.",
        "MACs are counted with them; they are taken from the data where not given.",
    )
    strip_initializer_inputs: bool = _option(
        False,
        "Treat weights that the file lists among its inputs, with defaults, as the constants they are meant to be.",
        "The pruned model does not list them; before IR version 4 they are constants in any case.",
    )
    levels: tuple[float, ...] = _option(
        (0.75, 0.0),
        "The shares of units at which measured allocation runs the network with one group pruned.",
        "At 0 the group is gone where it can be, and may go then.",
    )
    trials: int = _option(
        0, "How many allocations are carried out to take the best of them.", "0 takes the one that was computed."
    )
    latency_batch: int | None = _option(
        None,
        "Samples per run that latency=F is measured with, on the dynamic first axis.",
        "None stands for one sample, unless `input_shapes` says otherwise.",
    )
    cache: bool = _option(
        True,
        "Keep statistics and measured losses in the cache folder for later runs on the same model and data.",
        "Data that a function or a stream gives are not recognised, and nothing is kept of them.",
    )
    time_limit: float | None = _option(
        None,
        "Leave out what costs least accuracy until the run is expected to take so long: 90s, 5m, 1h. What is left out "
        "depends on the machine.",
        "In seconds. The report and the plan say which options were taken in the end; without a limit the same inputs "
        "give the same bytes everywhere.",
    )
    remeasure: bool = _option(False, "Forget earlier measurements on this machine, for latency=F and --round-to auto.")

    @property
    def recovery_options(self) -> RecoveryOptions:
        """How units are ranked, recovered and compared: what a plan keeps."""
        return RecoveryOptions(**{option.name: getattr(self, option.name) for option in fields(RecoveryOptions)})

    def with_recovery(self, recovery: RecoveryOptions) -> Options:
        """Return these options with the ranking and the recovery of a plan.

        Args:
            recovery: the options that a plan was made with and that its replay needs; all others stay, and tensors to
                compare networks at where there are any.

        """
        return replace(self, **asdict(recovery) | {"outputs_at": self.outputs_at or recovery.outputs_at})

    @property
    def runtime(self) -> Runtime:
        """Where networks run, and with how many samples at once."""
        return Runtime(self.providers, self.threads, self.batch_size)

    def document(self) -> dict[str, Any]:
        """Return the options as plain data, in the order in which reports list them."""
        return {name: str(self.target) if name == "target" else getattr(self, name) for name in _REPORTED}

    @property
    def multiple(self) -> int | None:
        """What widths are multiples of in any case, None where the network decides; measured ones come on top."""
        return 1 if self.round_to == AUTO else cast("int | None", self.round_to)

    @classmethod
    def of_effort(cls, effort: str, **chosen: Any) -> Options:
        """Return the options of an effort, one of `EFFORTS`, with those that were `chosen` in their place.

        Args:
            effort: a name in `EFFORTS`, which maps it to a set of options.
            chosen: values of single options by name; they go before those of the effort.

        Raises:
            OptionError: there is no such effort, or a value is out of its range.

        """
        _check_choice("effort", effort, tuple(EFFORTS))
        return cls(**{**EFFORTS[effort], **chosen})

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("allocation", self.allocation, ALLOCATIONS)
        if self.cost is not None:
            _check_choice("cost", self.cost, COSTS)
            if self.target.kind != "drop":
                raise OptionError(
                    f"expected a cost with a target drop=F, found {self.target}, which names its own; leave --cost out"
                )
        if isinstance(self.round_to, str) and self.round_to != AUTO:
            raise OptionError(f"expected round-to of a number or '{AUTO}', found '{self.round_to}'; for example 8")
        _check_positive(self, "round_to", "batch_size", "samples", "threads", "latency_batch")
        if self.time_limit is not None and not 0.0 < self.time_limit < math.inf:
            raise OptionError(f"expected a time limit above 0, found {self.time_limit}; for example 90s, 5m or 1h")
        if self.seed < 0:
            raise OptionError(f"expected a seed of 0 or more, found {self.seed}; any such number will do")


_REPORTED = (
    "target",
    "cost",
    "select",
    "recovery",
    "allocation",
    "round_to",
    "ignore",
    "only",
    "samples",
    "seed",
    "batch_size",
    "ridge",
    "one_pass",
    "prune_normalised",
    "providers",
    "threads",
    "custom_ops",
    "input_shapes",
    "strip_initializer_inputs",
    "outputs_at",
    "rows",
    "probes",
    "levels",
    "trials",
    "sweeps",
    "latency_batch",
    "cache",
    "time_limit",
    "remeasure",
)
"""The options in the order of `document`: reports of other versions are compared with these line by line."""


def _check_positive(options: RecoveryOptions, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value not in (None, AUTO) and value < 1:
            raise OptionError(f"expected {name.replace('_', '-')} of 1 or more, found {value}; give a positive number")


def _check_choice(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(f"expected a {what} among {', '.join(allowed)}, found '{value}'; choose one of them")
