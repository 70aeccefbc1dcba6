"""Perplexity of a language model: exp of the mean negative log-likelihood of each next token.

Every window stands alone: its first token is given, each later one is predicted from those before it in the window.
The log-softmax of the logits and the mean are taken in float64, whatever type the model computes in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnx_subprune.calibration import DEFAULT_BATCH_SIZE, Dataset, token_input
from onnx_subprune.calibration.batch_trial import tried_batch_size
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.model import InputSpec, check_model, input_specs, open_session, run

__all__ = ["Perplexity", "perplexity"]

Array = NDArray[Any]
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")
_MASK = "attention_mask"
# Logits of one run, and the part of them that is worked on in float64 at a time.
_LOGITS_BYTES = 1 << 28
_ROW_ENTRIES = 1 << 22


@dataclass(frozen=True)
class Perplexity:
    """How well next tokens are predicted.

    Attributes:
        perplexity: exp(nll); infinite where a token that came was given no probability at all.
        nll: mean negative log-likelihood of the predicted tokens, in nats.
        tokens: how many were predicted: one less than there are in each window.
        windows: how many windows.

    """

    perplexity: float
    nll: float
    tokens: int
    windows: int


def perplexity(
    model: onnx.ModelProto,
    data: Dataset,
    *,
    providers: Sequence[str] = ("cpu",),
    batch_size: int = DEFAULT_BATCH_SIZE,
    threads: int | None = None,
) -> Perplexity:
    """Measure perplexity on windows of token ids.

    Args:
        model: takes `input_ids` [batch, sequence] and returns `logits` [batch, sequence, vocabulary] (or has only one
            integer input and one float output of these ranks).
        data: windows of token ids, from `open_tokens`. Where it holds an `attention_mask`, only pairs of neighbours
            that both have a 1 there are counted.
        providers: execution providers, most wanted first.
        batch_size: windows per run at most; fewer where their logits would be large.
        threads: intra-op threads of the runtime.

    Raises:
        ModelError: the model is broken, takes no token ids, returns no logits, or returns NaN.
        DataError: windows of less than 2 tokens, ids beyond the vocabulary, or nothing to predict.

    """
    check_model(model)
    ids = token_input(input_specs(model))
    session = open_session(model, providers, threads=threads)
    output = _logits_output(session)
    batch_size = tried_batch_size(data, batch_size, lambda feeds: run(session, feeds))
    first = next(iter(data.batches(1)))
    vocabulary = _vocabulary(session, output, ids, first)
    window_bytes = max(1, first[ids.name].size) * vocabulary * 4
    total, predicted, windows = 0.0, 0, 0
    for feeds in data.batches(max(1, min(batch_size, _LOGITS_BYTES // window_bytes))):
        tokens = feeds[ids.name]
        _check_ids(tokens, vocabulary, data.source)
        logits = run(session, feeds, [output])[output]
        _check_logits(logits, tokens, output)
        losses = _losses(logits, tokens, _counted_tokens(feeds, tokens))
        if np.isnan(losses).any():
            raise ModelError(
                f"finite logits expected in output '{output}', found NaN or infinity in windows {windows} to "
                f"{windows + len(tokens) - 1}; run the model in float32, or mend it"
            )
        total, predicted, windows = total + float(losses.sum()), predicted + losses.size, windows + len(tokens)
    if not predicted:
        raise DataError(f"{data.source}: at least one token to predict expected, found none; mend the attention mask")
    nll = total / predicted
    return Perplexity(_exp(nll), nll, predicted, windows)


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf


def _logits_output(session: ort.InferenceSession) -> str:
    """Return the output `logits`, or the only float output of rank 3."""
    outputs = [value for value in session.get_outputs() if value.type in _FLOATS and len(value.shape or ()) == 3]
    named = [value for value in outputs if value.name == "logits"] or (outputs if len(outputs) == 1 else [])
    if named:
        return str(named[0].name)
    given = ", ".join(f"'{value.name}' {value.type} {value.shape}" for value in session.get_outputs())
    raise ModelError(
        f"a float output 'logits' [batch, sequence, vocabulary] expected, found {given}; use another metric"
    )


def _vocabulary(session: ort.InferenceSession, output: str, ids: InputSpec, feeds: dict[str, Array]) -> int:
    """Return the size of the last axis of the logits; a model that does not say it is run once on ids of zero."""
    size = next(value.shape[-1] for value in session.get_outputs() if value.name == output)
    if isinstance(size, int) and size > 0:
        return size
    probe = {**feeds, ids.name: np.zeros_like(feeds[ids.name])}
    return int(run(session, probe, [output])[output].shape[-1])


def _check_ids(tokens: Array, vocabulary: int, source: str) -> None:
    if tokens.shape[1] < 2:
        raise DataError(
            f"{source}: windows of at least 2 tokens expected, found {tokens.shape[1]}; the first has nothing before it"
        )
    outside = tokens[(tokens < 0) | (tokens >= vocabulary)]
    if outside.size:
        raise DataError(
            f"{source}: token ids from 0 to {vocabulary - 1} expected, the vocabulary of the model, found "
            f"{outside[0]}; use the model's own tokenizer"
        )


def _check_logits(logits: Array, tokens: Array, output: str) -> None:
    if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
        raise ModelError(
            f"output '{output}' expected to hold logits for each of {list(tokens.shape)} tokens, found shape "
            f"{list(logits.shape)}; use another metric"
        )


def _counted_tokens(feeds: dict[str, Array], tokens: Array) -> Array:
    """Return bool [n, t - 1]: the tokens that count, and that have one before them that does."""
    mask = feeds.get(_MASK)
    if mask is None or mask.shape != tokens.shape:
        return np.ones((len(tokens), tokens.shape[1] - 1), bool)
    attended = mask != 0
    counted: Array = attended[:, 1:] & attended[:, :-1]
    return counted


def _losses(logits: Array, tokens: Array, counted: Array) -> NDArray[np.float64]:
    """Return -log softmax at the next token, float64, one for each entry of `counted` that is set."""
    rows, columns = np.nonzero(counted)
    losses = np.empty(len(rows))
    step = max(1, _ROW_ENTRIES // logits.shape[2])
    for start in range(0, len(rows), step):
        row, column = rows[start : start + step], columns[start : start + step]
        x = logits[row, column].astype(np.float64)
        with np.errstate(all="ignore"):
            top = x.max(axis=1)
            spread = np.log(np.exp(x - top[:, None]).sum(axis=1))
        losses[start : start + step] = top + spread - x[np.arange(len(x)), tokens[row, column + 1]]
    return losses
