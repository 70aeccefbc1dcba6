"""Whether statistics that are read are what was saved, and whether a matrix can be a Gram matrix at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["checksum", "is_gram"]

# Sums over float32 products, or over TF32 ones on a GPU, may break the inequalities of exact sums by this share.
_TOLERANCE = 1e-2
# Below it the square of a float32 number is lost, but not its sum.
_LOST_SQUARE = 1e-37
_FEW = 64


def checksum(header: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of all that a file of statistics holds.

    Args:
        header: plain data; an entry `checksum` is left out.
        tensors: contiguous arrays by name.

    >>> held = checksum({"samples": 3}, {"x": np.eye(2)})
    >>> held == checksum({"samples": 3, "checksum": held}, {"x": np.eye(2)}), held == checksum({}, {"x": np.eye(2)})
    (True, False)

    """
    content = {key: value for key, value in header.items() if key != "checksum"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def is_gram(matrices: NDArray[np.float64]) -> bool:
    """Whether matrices are symmetric and positive semi-definite, within the rounding of sums of float32 products.

    Large matrices are held to the inequality of Cauchy and Schwarz alone, |g_ij|² <= g_ii g_jj, small ones to their
    eigenvalues too.

    Args:
        matrices: finite, [blocks, d, d].

    >>> is_gram(np.array([[[2.0, 1.0], [1.0, 1.0]]])), is_gram(np.array([[[2.0, 3.0], [3.0, 1.0]]]))
    (True, False)

    """
    return all(_is_gram(matrix) for matrix in matrices)


def _is_gram(matrix: NDArray[np.float64]) -> bool:
    diagonal = matrix.diagonal()
    if (diagonal < 0).any():
        return False
    # The last entry is the weight of all positions: each may have lost a square.
    roots = np.sqrt(diagonal + _LOST_SQUARE * max(1.0, float(matrix[-1, -1])))
    for row, root in enumerate(roots):
        bound = root * roots
        # Rows, so that no second matrix is made.
        if (np.abs(matrix[row]) > (1 + _TOLERANCE) * bound).any():
            return False
        if (np.abs(matrix[row] - matrix[:, row]) > _TOLERANCE * bound).any():
            return False
    if len(matrix) > _FEW:
        return True
    return bool(np.linalg.eigvalsh(matrix / np.outer(roots, roots))[0] >= -_TOLERANCE * len(matrix))
