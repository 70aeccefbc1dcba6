"""Arguments and options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from onnx_subprune.errors import OptionError
from onnx_subprune.model import parse_input_shapes

__all__ = [
    "RUNTIME",
    "BatchSize",
    "Calib",
    "Data",
    "InputShapes",
    "Json",
    "Model",
    "Models",
    "Out",
    "Providers",
    "PruneNormalised",
    "Quiet",
    "ReportFile",
    "Samples",
    "Seed",
    "StatisticsFile",
    "Threads",
    "Timed",
    "Verbose",
    "multiple",
    "names",
    "shapes",
    "strength",
]

_CALIBRATION = "Calibration"
RUNTIME = "Runtime"
_OUTPUT = "Output"

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.", show_default=False)]
Models = Annotated[
    list[Path], typer.Argument(metavar="MODEL...", help="ONNX models; the first is the reference.", show_default=False)
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Where the pruned model goes.", show_default=False)]
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
Calib = Annotated[
    str | None,
    typer.Option(
        "--calib",
        metavar="DATA",
        help="Unlabelled calibration data: .npz (a key per input), a folder of .npy/.npz, "
        "a folder with test_data_set_*, or file.py:function.",
        rich_help_panel=_CALIBRATION,
        show_default=False,
    ),
]
StatisticsFile = Annotated[
    Path | None,
    typer.Option(
        "--statistics",
        metavar="FILE",
        help="Calibration statistics (.safetensors): written with --calib, read without it.",
        rich_help_panel=_CALIBRATION,
        show_default=False,
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        metavar="N",
        help="Use this many samples; all by default.",
        rich_help_panel=_CALIBRATION,
        show_default=False,
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", metavar="N", min=0, help="Of every random choice.", rich_help_panel=_CALIBRATION)
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", metavar="N", help="Samples per run.", rich_help_panel=_CALIBRATION)
]
InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shapes",
        metavar="NAME:DIMS",
        help="Sizes of a dynamic input, such as x:1,3,224,224; repeatable.",
        rich_help_panel=RUNTIME,
        show_default=False,
    ),
]
Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--providers",
        metavar="NAME",
        help="ONNX Runtime execution providers (cpu, cuda, ...), most wanted first; repeat, or separate by commas.",
        rich_help_panel=RUNTIME,
        show_default="cpu",
    ),
]
PruneNormalised = Annotated[
    bool,
    typer.Option(
        "--prune-normalised",
        help="Let axes shrink that a LayerNorm, RMSNorm or GroupNorm takes its statistics over, "
        "such as the residual stream of a transformer.",
        rich_help_panel="Pruning",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        help="Threads of ONNX Runtime; its own choice by default.",
        rich_help_panel=RUNTIME,
        show_default=False,
    ),
]
ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write all there is to say: FILE.html, one page that needs nothing else, or FILE.json.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Timed = Annotated[
    bool | None,
    typer.Option(
        "--latency/--no-latency",
        help="Measure how fast both models are; by default where --report asks for a page.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout and nothing else.", rich_help_panel=_OUTPUT),
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        metavar="",
        help="Say more on stderr; -vv says everything.",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="No progress and no warnings on stderr.", rich_help_panel=_OUTPUT)
]


def multiple(round_to: str) -> int | str:
    """Return what `--round-to` names: a number, or a word that `Options` knows or refuses."""
    return int(round_to) if round_to.strip().lstrip("-").isdecimal() else round_to.strip()


def names(providers: Sequence[str] | None) -> tuple[str, ...]:
    """Return the execution providers that `--providers` names; the CPU where it names none."""
    given = ",".join(providers or ()).split(",")
    return tuple(name for text in given if (name := text.strip())) or ("cpu",)


def shapes(texts: Sequence[str] | None) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return the sizes that `--input-shapes` gives; OptionError if one does not look like x:1,3,224,224."""
    return tuple(parse_input_shapes(texts or ()).items())


def strength(ridge: float) -> float:
    """Return `ridge`; OptionError unless it is a finite number of at least zero."""
    if not (math.isfinite(ridge) and ridge >= 0):
        raise OptionError(f"expected a ridge of 0 or more, found {ridge}; for example 1e-6")
    return ridge
