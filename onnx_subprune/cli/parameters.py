"""Arguments and options of the commands, each written once, and what their text stands for.

An option that is a field of `Options` has the name and the help of that field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from onnx_subprune.errors import OptionError
from onnx_subprune.model import parse_input_shapes
from onnx_subprune.options import COSTS, EFFORTS, Options, Target

__all__ = [
    "CALIBRATION",
    "OUTPUT",
    "PRUNING",
    "RUNTIME",
    "Allocation",
    "BatchSize",
    "Cache",
    "Calib",
    "CostName",
    "CustomOps",
    "Data",
    "DryRun",
    "Effort",
    "Ignore",
    "InputShapes",
    "Json",
    "LabelledData",
    "LatencyBatch",
    "Model",
    "Models",
    "OnePass",
    "Only",
    "Out",
    "OutOrNothing",
    "OutputsAt",
    "PlanArgument",
    "PlanFile",
    "Providers",
    "PruneNormalised",
    "Quiet",
    "Recovery",
    "Remeasure",
    "ReportFile",
    "Ridge",
    "RoundTo",
    "Samples",
    "Seed",
    "Select",
    "StatisticsFile",
    "Sweeps",
    "TargetText",
    "Threads",
    "TimeLimit",
    "Timed",
    "Verbose",
    "libraries",
    "names",
    "option",
    "parsed",
    "shapes",
]

PRUNING, CALIBRATION, RUNTIME, OUTPUT = "Pruning", "Calibration", "Runtime", "Output"
"""Headings that options stand under."""

_HELP: Mapping[str, str] = {field.name: field.metadata["help"] for field in fields(Options)}


def option(field: str, metavar: str | None, panel: str | None, *flags: str, **settings: Any) -> Any:
    """Return the option of the command line that sets a field of `Options`.

    Args:
        field: its name, from which the option's name follows where there are no `flags`.
        metavar: stands for the value.
        panel: the heading.
        flags: names of the option.
        settings: of `typer.Option`, such as another `help` where a command means something else by the field.

    """
    names = flags or (f"--{field.replace('_', '-')}",)
    return typer.Option(*names, **{"metavar": metavar, "help": _HELP[field], "rich_help_panel": panel, **settings})


def _argument(metavar: str, text: str) -> Any:
    return typer.Argument(metavar=metavar, help=text, show_default=False)


def _file(flag: str, text: str, panel: str) -> Any:
    return typer.Option(flag, metavar="FILE", help=text, rich_help_panel=panel, show_default=False)


# What is pruned and where it goes.
Model = Annotated[Path, _argument("MODEL", "The ONNX model.")]
Models = Annotated[list[Path], _argument("MODEL...", "ONNX models; the first is the reference.")]
Out = Annotated[Path, _argument("OUT", "Where the pruned model goes.")]
OutOrNothing = Annotated[Path | None, _argument("OUT", "Where the pruned model goes; may be left out with --dry-run.")]
PlanArgument = Annotated[Path, _argument("PLAN", "What `prune --plan` wrote.")]

# How it is pruned.
TargetText = Annotated[str, option("target", "KIND=F", PRUNING, show_default=False)]
CostName = Annotated[str | None, option("cost", "NAME", PRUNING, show_default=COSTS[0])]
Effort = Annotated[
    str,
    typer.Option(
        "--effort",
        metavar="NAME",
        help=f"{', '.join(EFFORTS)}: what the options below are where they are not given.",
        rich_help_panel=PRUNING,
    ),
]
LabelledData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Labelled data to measure top-1 accuracy on, before and after; a target drop=F is measured on it.",
        rich_help_panel=PRUNING,
        show_default=False,
    ),
]
Select = Annotated[str | None, option("select", "NAME", PRUNING)]
Recovery = Annotated[str | None, option("recovery", "NAME", PRUNING)]
OnePass = Annotated[bool | None, option("one_pass", None, PRUNING, "--one-pass/--sequential")]
Sweeps = Annotated[int | None, option("sweeps", "N", PRUNING)]
Allocation = Annotated[str | None, option("allocation", "NAME", PRUNING)]
RoundTo = Annotated[str | None, option("round_to", "N", PRUNING, show_default=False)]
Ignore = Annotated[list[str] | None, option("ignore", "GLOB", PRUNING, show_default=False)]
Only = Annotated[list[str] | None, option("only", "GLOB", PRUNING, show_default=False)]
Ridge = Annotated[float, option("ridge", "F", PRUNING)]
PruneNormalised = Annotated[bool, option("prune_normalised", None, PRUNING)]
StripInitializerInputs = Annotated[bool, option("strip_initializer_inputs", None, PRUNING)]

OutputsAt = Annotated[list[str] | None, option("outputs_at", "TENSOR", PRUNING, show_default=False)]

# On which data.
Calib = Annotated[
    str | None,
    typer.Option(
        "--calib",
        metavar="DATA",
        help="Unlabelled calibration data: .npz (a key per input), a folder of .npy/.npz, "
        "a folder with test_data_set_*, or file.py:function.",
        rich_help_panel=CALIBRATION,
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Evaluation data: .npz (a key per input, 'labels' for top-1), .npy, a folder of them, .json of token ids, "
        "a folder with test_data_set_*, or file.py:function.",
        show_default=False,
    ),
]
StatisticsFile = Annotated[
    Path | None,
    _file("--statistics", "Calibration statistics (.safetensors): written with --calib, read without it.", CALIBRATION),
]
Samples = Annotated[int | None, option("samples", "N", CALIBRATION, show_default=False)]
Seed = Annotated[int, option("seed", "N", CALIBRATION, min=0)]
BatchSize = Annotated[int, option("batch_size", "N", CALIBRATION)]

# On which machine.
InputShapes = Annotated[list[str] | None, option("input_shapes", "NAME:DIMS", RUNTIME, show_default=False)]
Providers = Annotated[list[str] | None, option("providers", "NAME", RUNTIME, show_default="cpu")]
Threads = Annotated[int | None, option("threads", "N", RUNTIME, show_default=False)]
CustomOps = Annotated[list[str] | None, option("custom_ops", "LIB", RUNTIME, show_default=False)]
LatencyBatch = Annotated[int | None, option("latency_batch", "N", RUNTIME, show_default="1")]
TimeLimit = Annotated[str | None, option("time_limit", "TIME", RUNTIME, show_default=False)]
Remeasure = Annotated[bool, option("remeasure", None, RUNTIME)]
Cache = Annotated[bool, option("cache", None, RUNTIME, "--cache/--no-cache")]

# What is written and printed.
PlanFile = Annotated[Path | None, _file("--plan", "Write which units stay, for `apply`.", OUTPUT)]
ReportFile = Annotated[
    Path | None,
    _file("--report", "Write all there is to say: FILE.html, one page that needs nothing else, or FILE.json.", OUTPUT),
]
Timed = Annotated[
    bool | None,
    typer.Option(
        "--timing/--no-timing",
        "--latency/--no-latency",
        help="Measure at length how fast both models are and where their time goes, or not at all; by default a second "
        "or so tells whether the pruned one is faster, and a page has it all.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; write nothing.", rich_help_panel=OUTPUT)
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.", rich_help_panel=OUTPUT)
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        metavar="",
        help="Say more on stderr; -vv says everything.",
        rich_help_panel=OUTPUT,
        show_default=False,
    ),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="No progress and no warnings on stderr.", rich_help_panel=OUTPUT)
]


def parsed(**given: Any) -> dict[str, Any]:
    """Return the fields of `Options` that were given on the command line, in the form that `Options` takes.

    >>> parsed(target="macs=0.5", round_to="8", providers=["cuda,cpu"], samples=None)
    {'target': Target(kind='macs', value=0.5), 'round_to': 8, 'providers': ('cuda', 'cpu')}

    Raises:
        OptionError: a text is not understood.

    """
    return {
        field: _READERS[field](value) if field in _READERS else value
        for field, value in given.items()
        if value is not None
    }


def names(providers: Sequence[str]) -> tuple[str, ...]:
    """Return the execution providers that `--providers` names; the CPU where it names none.

    >>> names(["cuda, cpu", "openvino"]), names([" "])
    (('cuda', 'cpu', 'openvino'), ('cpu',))

    """
    return tuple(name for text in ",".join(providers).split(",") if (name := text.strip())) or ("cpu",)


def shapes(texts: Sequence[str]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the sizes that `--input-shapes` gives; OptionError if one does not look like x:1,3,224,224."""
    return tuple(parse_input_shapes(texts).items())


def libraries(custom_ops: Sequence[str] | None) -> dict[str, str]:
    """Return the files that `--custom-ops` names, by the name that the user knows them by.

    >>> libraries(["ops.so"]), libraries(None)
    ({"--custom-ops 'ops.so'": 'ops.so'}, {})

    """
    return {f"--custom-ops '{library}'": library for library in custom_ops or ()}


def _multiple(round_to: str | int) -> int | str:
    """Return a number, or a word that `Options` knows or refuses."""
    text = str(round_to).strip()
    return int(text) if text.lstrip("-").isdecimal() else text


def _seconds(text: str) -> float:
    """Return the seconds that a text such as 90s, 5m or 1h stands for.

    Raises:
        OptionError: it is no such text.

    """
    number, unit = text.strip()[:-1], _SECONDS.get(text.strip()[-1:])
    try:
        return float(number) * unit if unit else float(text)
    except ValueError:
        raise OptionError(
            f"expected a time limit such as 90s, 5m or 1h, found '{text}'; give a number and a unit"
        ) from None


_SECONDS: Mapping[str, float] = {"s": 1.0, "m": 60.0, "h": 3600.0}

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "target": Target.parse,
    "round_to": _multiple,
    "ignore": tuple,
    "only": tuple,
    "outputs_at": tuple,
    "providers": names,
    "custom_ops": tuple,
    "input_shapes": shapes,
    "time_limit": _seconds,
}
