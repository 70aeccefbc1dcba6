"""Second-moment statistics of calibration: Gram matrices that add up, and the file they are kept in.

For the features x of a tap (d of them, the constant 1 appended) the affine second moment is the sum of
[x; 1][x; 1]ᵀ over all positions. Sums rather than means: parts of a data set, processes and machines merge by `+`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from onnx_subprune.calibration.accumulate import Accumulator
from onnx_subprune.calibration.integrity import checksum, is_gram
from onnx_subprune.calibration.taps import RELATIVE, Tap
from onnx_subprune.errors import DataError, OutputError
from onnx_subprune.model import atomic_write, check_regular
from onnx_subprune.model.protos import one_line

__all__ = ["ROWS_PER_FEATURE", "Gram", "Statistics", "accumulate", "few_rows", "thin_taps"]

ROWS_PER_FEATURE = 16
_BAND = 64
_FORMAT = "onnx_subprune.statistics/1"
# One key only: safetensors writes several in an order that changes from run to run.
_METADATA = "onnx_subprune"

# What reading and believing the content of a file ends in that is not one of ours.
_UNREADABLE = (
    *(OSError, SafetensorError, LookupError, TypeError, ValueError),
    *(ArithmeticError, AttributeError, RecursionError),
)

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gram:
    """Affine second moments of one tap, as sums over `count` positions.

    Attributes:
        count: number of positions (samples x positions per sample) summed.
        matrix: float64 [blocks, d + 1, d + 1]; the last row and column belong to the constant 1. Its last entry is the
            sum of the weights of all positions: `count`, but for taps whose positions count differently.

    """

    count: int
    matrix: Matrix

    @property
    def blocks(self) -> int:
        """Number of blocks, each with moments of its own."""
        return int(self.matrix.shape[0])

    @property
    def features(self) -> int:
        """Number of features d of each block, the constant not counted."""
        return int(self.matrix.shape[1]) - 1

    def __add__(self, other: Gram) -> Gram:
        """Merge the positions of both; DataError if the shapes differ."""
        if self.matrix.shape != other.matrix.shape:
            raise DataError(
                f"Gram matrices of one shape expected, found {self.matrix.shape} and {other.matrix.shape}; "
                "merge statistics of the same tap"
            )
        return Gram(self.count + other.count, self.matrix + other.matrix)

    @property
    def weight(self) -> Matrix:
        """Sum of the weights of all positions: [blocks, 1, 1]."""
        return self.matrix[:, -1:, -1:]

    def mean(self) -> Matrix:
        """Mean of every feature: [blocks, d]."""
        return self.matrix[:, -1, :-1] / self.weight[:, 0]

    def second_moment(self) -> Matrix:
        """Affine second moment per position: [blocks, d + 1, d + 1]."""
        return self.matrix / self.weight

    def covariance(self) -> Matrix:
        """Covariance of the features, positions counted by their weights: [blocks, d, d], variances never below 0."""
        mean = self.mean()
        result: Matrix = self.matrix[:, :-1, :-1] / self.weight
        for block, block_mean in zip(result, mean, strict=True):
            for start in range(0, self.features, _BAND):
                # The products of all means at once would take as much memory as the result.
                rows = slice(start, start + _BAND)
                block[rows] -= np.outer(block_mean[rows], block_mean)
        diagonal = np.einsum("bii->bi", result)
        np.maximum(diagonal, 0.0, out=diagonal)
        return result


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one calibration pass leaves behind.

    Attributes:
        grams: the Gram of every tap, by `Tap.key`.
        samples: number of samples seen.
        fingerprint: of the model they were taken on (`onnx_subprune.model.fingerprint`).
        input_shapes: of one sample by input name, to count multiply-accumulates with; empty where not known.
        warnings: what the user should know of the samples.

    """

    grams: dict[str, Gram]
    samples: int
    fingerprint: str
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def merge(self, other: Statistics) -> Statistics:
        """Return the statistics of both sets of samples.

        Args:
            other: of other samples, on the same model and taps.

        Raises:
            DataError: they belong to different models or hold different taps.

        """
        if self.fingerprint != other.fingerprint:
            raise DataError(
                f"statistics of one model expected, found fingerprints {self.fingerprint[:12]} and "
                f"{other.fingerprint[:12]}; merge statistics taken on the same model"
            )
        if odd := sorted(self.grams.keys() ^ other.grams.keys()):
            raise DataError(
                f"the same taps expected in both statistics, found '{odd[0]}' in only one of them; "
                "calibrate both parts with the same taps"
            )
        grams = {key: gram + other.grams[key] for key, gram in self.grams.items()}
        samples, warnings = self.samples + other.samples, (*self.warnings, *other.warnings)
        return Statistics(grams, samples, self.fingerprint, self.input_shapes, warnings)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, whole or not at all.

        Args:
            path: of the file.

        Raises:
            OutputError: the file cannot be written there.

        """
        header = {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "samples": self.samples,
            "counts": {key: gram.count for key, gram in self.grams.items()},
            "input_shapes": self.input_shapes,
            **({"warnings": self.warnings} if self.warnings else {}),
        }
        tensors = {key: np.ascontiguousarray(gram.matrix) for key, gram in self.grams.items()}
        header["checksum"] = checksum(json.loads(json.dumps(header)), tensors)
        _save(Path(path), tensors, {_METADATA: json.dumps(header, sort_keys=True)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read what `save` wrote.

        Args:
            path: of the file.

        Raises:
            DataError: the file is missing, damaged or not one of ours.

        """
        try:
            header, tensors = _read(Path(path))
            grams = {str(key): _checked_gram(key, int(count), tensors[key]) for key, count in header["counts"].items()}
            # Statistics of before lack it.
            if "checksum" in header and header["checksum"] != checksum(header, tensors):
                raise ValueError("content that does not fit its checksum")
            shapes = {str(name): tuple(int(n) for n in shape) for name, shape in header["input_shapes"].items()}
            warnings = tuple(str(line) for line in header.get("warnings", ()))
            return cls(grams, int(header["samples"]), str(header["fingerprint"]), shapes, warnings)
        except _UNREADABLE as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
            raise DataError(
                f"statistics saved by onnx-subprune expected in '{path}', found something else ({reason}); "
                "calibrate again"
            ) from error


def accumulate(x: NDArray[Any], tap: Tap) -> Gram:
    """Return the Gram of one tensor.

    Args:
        x: any rank; float16, bfloat16, float32 and integers are multiplied in float32, float64 as it is.
        tap: where the features lie; only its axis, blocks and inner are used.

    Raises:
        DataError: the axis does not fit the tap, or a value is not finite.

    """
    accumulator = Accumulator(tap)
    accumulator.add(x)
    return Gram(accumulator.count, accumulator.finish())


def few_rows(done: str, gram: Gram) -> str | None:
    """Return a sentence on a Gram matrix of so few rows that least squares over-fits, None where there are enough.

    Args:
        done: the start of the sentence, such as `'conv1' was fitted`.
        gram: enough are 16 rows per feature.

    """
    advised = ROWS_PER_FEATURE * gram.features
    if gram.count >= advised:
        return None
    return (
        f"{done} on {gram.count} rows for {gram.features} features, where at least {advised} are advised; "
        "use more samples"
    )


def thin_taps(statistics: Statistics) -> list[str]:
    """Return one sentence for every tap with fewer than 16 rows per feature.

    Args:
        statistics: of any number of taps.

    """
    lines = (few_rows(f"'{key}' was measured", gram) for key, gram in sorted(statistics.grams.items()))
    return [line for line in lines if line is not None]


def _checked_gram(key: str, count: int, matrix: Matrix) -> Gram:
    if matrix.dtype != np.float64 or matrix.ndim != 3 or matrix.shape[1] != matrix.shape[2] or not matrix.size:
        raise ValueError(f"a matrix of {matrix.dtype} {matrix.shape}")
    weights = matrix[:, -1, -1]
    fits = np.all(weights > 0) if count and RELATIVE in key else np.all(weights == count)
    if count < 0 or not fits or not np.isfinite(matrix).all():
        raise ValueError("a matrix that does not fit its count")
    if not is_gram(matrix):
        raise ValueError("a matrix that is no sum of squares")
    return Gram(count, matrix)


def _read(path: Path) -> tuple[dict[str, Any], Mapping[str, Matrix]]:
    check_regular(path)
    with safe_open(path, framework="numpy") as file:
        header = json.loads((file.metadata() or {})[_METADATA])
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']}")
        return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping


def _save(path: Path, tensors: dict[str, Matrix], metadata: dict[str, str]) -> None:
    try:
        with atomic_write(path) as temporary:
            mode = temporary.stat().st_mode
            save_file(tensors, temporary, metadata)
            # safetensors leaves a file that only its owner may read, whatever the umask says.
            temporary.chmod(mode)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputError(f"a writable path for the statistics expected, found '{path}' ({reason})") from error
