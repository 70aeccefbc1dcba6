"""A model taken apart, where its statistics are taken, cut by a plan, and held to its oracle."""

from onnx_subprune.network.analysis import Analysis, ModelSource, analyse
from onnx_subprune.network.calibrated import Calibrated, output_distance
from onnx_subprune.network.inputs import (
    Feeds,
    check_pruning_statistics,
    check_statistics,
    prepare,
    probe,
    pruning_statistics,
    take_statistics,
)
from onnx_subprune.network.normalise import infer_structure
from onnx_subprune.network.rewrite import dense_copy, factorised, references, restructured, shrink
from onnx_subprune.network.selection import check_patterns, chosen_groups, is_chosen
from onnx_subprune.network.stamping import stamp
from onnx_subprune.network.tapped_features import (
    few_row_warnings,
    normalisation_grams,
    pairs_of,
    readers_of,
    tap_of,
    taps_of,
)
from onnx_subprune.network.verify import TOLERANCE, agree, check_structure, disagreement, relative_error, verify

__all__ = [
    "TOLERANCE",
    "Analysis",
    "Calibrated",
    "Feeds",
    "ModelSource",
    "agree",
    "analyse",
    "check_patterns",
    "check_pruning_statistics",
    "check_statistics",
    "check_structure",
    "chosen_groups",
    "dense_copy",
    "disagreement",
    "factorised",
    "few_row_warnings",
    "infer_structure",
    "is_chosen",
    "normalisation_grams",
    "output_distance",
    "pairs_of",
    "prepare",
    "probe",
    "pruning_statistics",
    "readers_of",
    "references",
    "relative_error",
    "restructured",
    "shrink",
    "stamp",
    "take_statistics",
    "tap_of",
    "taps_of",
    "verify",
]
