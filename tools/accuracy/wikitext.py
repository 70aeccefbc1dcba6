"""Windows of WikiText-2 to calibrate on, from its validation set.

That set is stored with every rare word replaced by `<unk>`, one word in eighteen, which a tokenizer of byte pairs reads
as three tokens. The test set has its words. Statistics of such text hold too much of one string that never comes again,
and nothing of what rare words do: so each `<unk>` is replaced by a made-up word, the beginning of one and up to two
further pieces of others, from the vocabulary at random. Windows are mixed once for all, so that every prefix has many
articles.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

__all__ = ["calibration_windows"]

_UNKNOWN = ("Ġ<", "unk", ">")
_BEGINNING, _FURTHER = re.compile("Ġ[A-Za-z][a-z]+"), re.compile("[a-z]{2,}")
_MOST_FURTHER = 2


def calibration_windows(ids: np.ndarray, tokenizer: Path, length: int) -> np.ndarray:
    """Return windows of tokens, int64 [windows, length], mixed; `ids` is the stored validation set."""
    rng = np.random.default_rng(0)
    vocabulary = json.loads(tokenizer.read_text())["model"]["vocab"]
    filled = _filled(ids, vocabulary, rng)
    windows = filled[: len(filled) // length * length].reshape(-1, length)
    return windows[rng.permutation(len(windows))]


def _filled(ids: np.ndarray, vocabulary: dict[str, int], rng: np.random.Generator) -> np.ndarray:
    beginnings, further = (
        np.array(sorted(number for piece, number in vocabulary.items() if pattern.fullmatch(piece)))
        for pattern in (_BEGINNING, _FURTHER)
    )
    first, second, third = (vocabulary[piece] for piece in _UNKNOWN)
    places = np.flatnonzero((ids[:-2] == first) & (ids[1:-1] == second) & (ids[2:] == third))
    pieces, done = [], 0
    for place in places:
        word = [rng.choice(beginnings), *rng.choice(further, rng.integers(_MOST_FURTHER + 1))]
        pieces += [ids[done:place], np.array(word, ids.dtype)]
        done = place + len(_UNKNOWN)
    return np.concatenate([*pieces, ids[done:]])
