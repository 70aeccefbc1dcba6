"""Calibration: data in, second-moment statistics out."""

from onnx_subprune.calibration.accumulate import position_weights
from onnx_subprune.calibration.datasets import Dataset, WatchedDataset, watched
from onnx_subprune.calibration.engine import DEFAULT_BATCH_SIZE, DEFAULT_MAX_BYTES, calibrate
from onnx_subprune.calibration.first_samples import FirstSamples
from onnx_subprune.calibration.held_out import HELD, FittedDataset, portions
from onnx_subprune.calibration.readers import open_data
from onnx_subprune.calibration.statistics import ROWS_PER_FEATURE, Gram, Statistics, accumulate, few_rows, thin_taps
from onnx_subprune.calibration.taps import Tap, expose, probe_shapes
from onnx_subprune.calibration.token_inputs import token_input
from onnx_subprune.calibration.tokens import open_tokens

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "DEFAULT_MAX_BYTES",
    "HELD",
    "ROWS_PER_FEATURE",
    "Dataset",
    "FirstSamples",
    "FittedDataset",
    "Gram",
    "Statistics",
    "Tap",
    "WatchedDataset",
    "accumulate",
    "calibrate",
    "expose",
    "few_rows",
    "open_data",
    "open_tokens",
    "portions",
    "position_weights",
    "probe_shapes",
    "thin_taps",
    "token_input",
    "watched",
]
