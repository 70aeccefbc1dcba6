"""Perplexity against its definition, on models whose logits are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_tokens
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.evaluate import Perplexity, perplexity
from onnx_subprune.model import input_specs, open_session, run

VOCABULARY = 11
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (7, 9))
INPUT = "(int64[N,T] input_ids)"


def model(
    inputs: str = INPUT, output: str = "float[N,T,11] logits", body: str = "logits = Gather(table, input_ids)"
) -> onnx.ModelProto:
    """Return a model whose logits are a row of a table for each token."""
    network = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 20]> g {inputs} => ({output}) {{ {body} }}')
    table = 3 * np.random.default_rng(1).standard_normal((VOCABULARY, VOCABULARY)).astype(np.float32)
    network.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    return network


def measure(network: onnx.ModelProto, source: Any = IDS, window: int | None = None, **options: Any) -> Perplexity:
    return perplexity(network, open_tokens(source, input_specs(network), window=window), **options)


def by_definition(ids: np.ndarray) -> float:
    table = onnx.numpy_helper.to_array(model().graph.initializer[0]).astype(np.float64)
    likelihood = np.exp(table) / np.exp(table).sum(axis=1, keepdims=True)
    return float(np.exp(-np.log(likelihood[ids[:, :-1], ids[:, 1:]]).mean()))


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_perplexity_is_that_of_the_next_tokens(batch_size: int) -> None:
    found = measure(model(), batch_size=batch_size)
    assert found.perplexity == pytest.approx(by_definition(IDS), rel=1e-6)
    assert found.nll == pytest.approx(math.log(found.perplexity))
    assert (found.tokens, found.windows) == (7 * 8, 7)


def test_a_stream_counts_within_windows_only() -> None:
    stream = IDS.ravel()[:60]
    found = measure(model(), stream, window=8)
    assert found.perplexity == pytest.approx(by_definition(stream[:56].reshape(7, 8)), rel=1e-6)
    assert found.tokens == 49


def test_a_network_that_knows_nothing_has_the_perplexity_of_its_vocabulary() -> None:
    network = model(body="z = Constant<value_float=0.0>() r = Gather(table, input_ids) logits = Mul(r, z)")
    assert measure(network).perplexity == pytest.approx(VOCABULARY)


def test_padding_is_not_counted() -> None:
    network = model("(int64[N,T] input_ids, int64[N,T] attention_mask)")
    mask = np.ones_like(IDS)
    mask[0, 5:] = mask[1, :3] = 0
    found = measure(network, {"input_ids": IDS, "attention_mask": mask})
    table = onnx.numpy_helper.to_array(network.graph.initializer[0]).astype(np.float64)
    losses = np.log(np.exp(table).sum(axis=1, keepdims=True)) - table
    rows = [IDS[0, :5], IDS[1, 3:], *IDS[2:]]
    expected = np.concatenate([losses[row[:-1], row[1:]] for row in rows])
    assert found.tokens == len(expected) == 4 + 5 + 5 * 8
    assert found.nll == pytest.approx(expected.mean(), rel=1e-6)
    with pytest.raises(DataError, match="at least one token to predict expected"):
        measure(network, {"input_ids": IDS, "attention_mask": 0 * mask})


def test_large_logits_in_half_precision_are_measured_in_double() -> None:
    network = model(
        output="float16[N,T,11] logits",
        body="r = Gather(table, input_ids) k = Constant<value_float=5000.0>() s = Mul(r, k) logits = Cast<to = 10>(s)",
    )
    logits = run(open_session(network), {"input_ids": IDS})["logits"].astype(np.float64)
    chosen = np.take_along_axis(logits[:, :-1], IDS[:, 1:, None], axis=2)[..., 0]
    expected = (np.logaddexp.reduce(logits[:, :-1], axis=2) - chosen).mean()
    found = measure(network)
    assert found.nll == pytest.approx(expected, rel=1e-12)
    assert found.perplexity == math.inf


def test_the_vocabulary_is_found_where_the_model_does_not_say_it() -> None:
    network = model(output="float[N,T,V] logits")
    assert measure(network).perplexity == pytest.approx(by_definition(IDS), rel=1e-6)
    with pytest.raises(DataError, match="token ids from 0 to 10 expected, the vocabulary of the model, found 11"):
        measure(network, IDS + 1)


def test_a_decoder_with_an_empty_cache() -> None:
    network = model(
        "(int64[N,T] input_ids, int64[N,S] attention_mask, float[N,2,P,4] past_0)",
        body="logits = Gather(table, input_ids) present_0 = Identity(past_0)",
        output="float[N,T,11] logits, float[N,2,P,4] present_0",
    )
    assert measure(network).perplexity == pytest.approx(by_definition(IDS), rel=1e-6)


@pytest.mark.parametrize(
    ("network", "source", "kind", "message"),
    [
        (model(), IDS + 1, DataError, "from 0 to 10 expected, the vocabulary .* found 11; use the model's own"),
        (model(), IDS[:, :1], DataError, "windows of at least 2 tokens expected, found 1"),
        (model("(float[N,T] x)", body="logits = Unsqueeze(x, table)"), IDS, ModelError, "an integer input 'input_ids'"),
        (
            model(
                output="float[N,T] logits", body="r = Gather(table, input_ids) logits = ReduceMax<keepdims=0>(r, two)"
            ),
            IDS,
            ModelError,
            r"a float output 'logits' \[batch, sequence, vocabulary\] expected, found 'logits' tensor\(float\)",
        ),
        (
            model(body="r = Gather(table, input_ids) d = Sub(r, r) logits = Div(d, d)"),
            IDS,
            ModelError,
            "finite logits expected in output 'logits', found NaN or infinity in windows 0 to 6",
        ),
        (
            model(
                output="float[N,U,11] logits",
                body="""r = Gather(table, input_ids) s = Constant<value_ints=[-1]>() e = Constant<value_ints=[999]>()
                a = Constant<value_ints=[1]>() logits = Slice(r, s, e, a)""",
            ),
            IDS,
            ModelError,
            r"logits for each of \[7, 9\] tokens, found shape \[7, 1, 11\]",
        ),
    ],
)
def test_what_cannot_be_measured(network: onnx.ModelProto, source: Any, kind: type[Exception], message: str) -> None:
    two = onnx.numpy_helper.from_array(np.array([2]), "two")
    network.graph.initializer.append(two)
    with pytest.raises(kind, match=message):
        measure(network, source)
