"""Sentences of an encoder: token ids of many lengths, and how well cosines order pairs (the STS benchmark)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from scipy.stats import spearmanr

from onnx_subprune.calibration import open_data
from onnx_subprune.model import input_specs, open_session, run

__all__ = ["by_length", "correlation", "embedded", "sentences"]


def sentences(archive: Any) -> list[np.ndarray]:
    """The ids of each sentence, which lie end to end in `ids`, cut at `offsets`."""
    return np.split(archive["ids"], archive["offsets"][1:-1])


def by_length(texts: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the places and ids [n, t] of the sentences of each length: nothing needs padding."""
    lengths = np.array([len(ids) for ids in texts])
    for length in np.unique(lengths):
        places = np.flatnonzero(lengths == length)
        yield places, np.stack([texts[place] for place in places])


def embedded(model: onnx.ModelProto, texts: Sequence[np.ndarray], threads: int | None = None) -> np.ndarray:
    """Return unit vectors [sentences, width]: the mean over the tokens."""
    session = open_session(model, threads=threads)
    found: dict[int, np.ndarray] = {}
    for places, ids in by_length(texts):
        data = open_data({"input_ids": ids}, input_specs(model))
        states = [next(iter(run(session, feeds).values())) for feeds in data.batches(32)]
        found.update(zip(places.tolist(), np.concatenate(states).mean(axis=1), strict=True))
    vectors = np.stack([found[place] for place in range(len(texts))]).astype(np.float64)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def correlation(model: onnx.ModelProto, archive: Any, threads: int | None = None) -> float:
    """Spearman's, between the cosines of the pairs of an archive and their scores."""
    vectors = embedded(model, sentences(archive), threads)
    return float(spearmanr(np.sum(vectors[::2] * vectors[1::2], axis=1), archive["scores"]).statistic)
