"""Random inputs, and models that must take the same ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate import random_feeds
from onnx_subprune.evaluate.feeds import check_same_inputs
from onnx_subprune.model import input_specs


def model(inputs: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g ({inputs}) => (float[N, 3] y) {{ y = Identity(x) }}
    """)


SPECS = input_specs(model("float[N, 3] x, int64[N, 5] ids, bool[N] mask, float16[2] half"))
SHAPES = {"x": (40, 3), "ids": (40, 5), "mask": (40,), "half": (2,)}


def test_every_input_has_its_shape_and_type_and_the_seed_decides() -> None:
    feeds = random_feeds(SPECS, SHAPES, seed=3)
    assert {name: (array.shape, array.dtype) for name, array in feeds.items()} == {
        "x": ((40, 3), np.float32),
        "ids": ((40, 5), np.int64),
        "mask": ((40,), np.bool_),
        "half": ((2,), np.float16),
    }
    assert set(np.unique(feeds["ids"])) == {0, 1}
    again, other = random_feeds(SPECS, SHAPES, seed=3), random_feeds(SPECS, SHAPES, seed=4)
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)
    assert not np.array_equal(feeds["x"], other["x"])


def test_an_input_without_a_shape_or_with_text_is_refused() -> None:
    with pytest.raises(OptionError, match="a shape for input 'x' expected"):
        random_feeds(SPECS, {})
    text = input_specs(model("float[N, 3] x, string[N] words"))
    with pytest.raises(OptionError, match="'words' expected to hold numbers"):
        random_feeds(text, {"x": (1, 3), "words": (1,)})


def test_symbols_may_differ_and_sizes_may_not() -> None:
    feeds = {"x": np.zeros((2, 3), np.float32)}
    check_same_inputs([model("float[N, 3] x"), model("float[batch, 3] x"), model("float[2, 3] x")], feeds)
    for other in ("float[N, 4] x", "float[N] x", "float16[N, 3] x", "float[N, 3] x, float[1] z"):
        with pytest.raises(OptionError, match="model 2 expected to take the inputs of the first"):
            check_same_inputs([model("float[N, 3] x"), model(other)], feeds)


def test_feeds_name_every_input_and_no_other() -> None:
    for feeds in ({}, {"x": np.zeros((2, 3)), "z": np.zeros(1)}):
        with pytest.raises(OptionError, match="missing or unknown"):
            check_same_inputs([model("float[N, 3] x")], feeds)
