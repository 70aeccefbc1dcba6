"""A model taken apart, where its statistics are taken, cut by a plan, and held to its oracle."""

from onnx_subprune.network.analysis import Analysis, ModelSource, analyse
from onnx_subprune.network.inputs import (
    Feeds,
    check_statistics,
    prepare,
    probe,
    pruning_statistics,
    take_statistics,
)
from onnx_subprune.network.normalise import check_float, infer_structure
from onnx_subprune.network.rewrite import factorised, references, restructured, shrink
from onnx_subprune.network.taps import normalisation_grams, pairs_of, readers_of, tap_of, taps_of
from onnx_subprune.network.verify import TOLERANCE, check_structure, disagreement, relative_error, verify

__all__ = [
    "TOLERANCE",
    "Analysis",
    "Feeds",
    "ModelSource",
    "analyse",
    "check_float",
    "check_statistics",
    "check_structure",
    "disagreement",
    "factorised",
    "infer_structure",
    "normalisation_grams",
    "pairs_of",
    "prepare",
    "probe",
    "pruning_statistics",
    "readers_of",
    "references",
    "relative_error",
    "restructured",
    "shrink",
    "take_statistics",
    "tap_of",
    "taps_of",
    "verify",
]
