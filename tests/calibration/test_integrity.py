"""Statistics that were changed, or that cannot be sums of squares, are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from onnx_subprune.calibration import Statistics, Tap, accumulate
from onnx_subprune.calibration.integrity import is_gram
from onnx_subprune.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 5)).astype(np.float32)


def statistics() -> Statistics:
    return Statistics({"x": accumulate(X, Tap("x", -1))}, 32, "f" * 8, {"x": (5,)})


def rewritten(path: Path, matrix: np.ndarray, **changes: object) -> None:
    """Write the file anew as an earlier version would have: without a checksum."""
    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()["onnx_subprune"])
    del header["checksum"]
    save_file({"x": matrix}, path, {"onnx_subprune": json.dumps({**header, **changes})})


def test_every_bit_of_the_values_counts(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    statistics().save(path)
    whole = path.read_bytes()
    start = len(whole) - statistics().grams["x"].matrix.nbytes
    for place in range(start, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(DataError) as caught:
            Statistics.load(path)
        assert len(str(caught.value).splitlines()) == 1


def test_a_changed_fingerprint_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    statistics().save(path)
    path.write_bytes(path.read_bytes().replace(b"ffffffff", b"ffffffee"))
    with pytest.raises(DataError, match="does not fit its checksum"):
        Statistics.load(path)


def test_files_without_a_checksum_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    statistics().save(path)
    rewritten(path, statistics().grams["x"].matrix)
    assert np.array_equal(Statistics.load(path).grams["x"].matrix, statistics().grams["x"].matrix)


@pytest.mark.parametrize(("place", "factor"), [((0, 1, 1), -1.0), ((0, 1, 2), 1e6), ((0, 3, 0), 1e3)])
def test_what_is_no_gram_matrix_is_refused_without_a_checksum(
    tmp_path: Path, place: tuple[int, ...], factor: float
) -> None:
    path, matrix = tmp_path / "s.safetensors", statistics().grams["x"].matrix.copy()
    statistics().save(path)
    matrix[place] *= factor
    rewritten(path, matrix)
    with pytest.raises(DataError, match="no sum of squares"):
        Statistics.load(path)


def test_eigenvalues_of_small_matrices_count() -> None:
    """Each pair of these three may be so correlated, all together may not."""
    assert not is_gram(np.array([[[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]]]))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e10])
def test_sums_of_float32_pass_at_any_scale(scale: float) -> None:
    x = np.concatenate([X, X, np.zeros_like(X), 1e3 + X], axis=1) * np.float32(scale)
    assert is_gram(accumulate(x, Tap("x", -1)).matrix)
    wide = np.repeat(X, 40, axis=1) * np.float32(scale)
    assert is_gram(accumulate(wide, Tap("x", -1)).matrix)
