"""Sizes of dynamic axes: which are guessed, and what a batch changes."""

from __future__ import annotations

import onnx
import pytest

from onnx_subprune.cli.sizes import assumed, batched
from onnx_subprune.errors import OptionError
from onnx_subprune.model import InputSpec, input_specs


def specs(inputs: str) -> list[InputSpec]:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => (float[N, 3] y) {{ y = Identity(x) }}'
    return list(input_specs(onnx.parser.parse_model(text)))


def test_only_axes_past_the_batch_that_nobody_gave_are_guesses() -> None:
    inputs = specs("float[N, 3] x, int64[N, T] ids, float[N, 3, H, W] image")
    warnings = assumed(inputs, {"ids": (1, 8)})
    assert warnings == [
        "input 'image' has dynamic axes, and each counts as 1; give --input-shapes image:N,3,N,N with sizes for N"
    ]


def test_a_batch_changes_dynamic_first_axes_alone() -> None:
    inputs = specs("float[N, 3] x, float s")
    assert batched(inputs, {}, None) == {"x": (1, 3), "s": ()}
    assert batched(inputs, {}, 5) == {"x": (5, 3), "s": ()}
    assert batched(inputs, {"x": (2, 3)}, 5)["x"] == (5, 3)
    assert batched(specs("float[4, 3] x"), {}, 4) == {"x": (4, 3)}


def test_a_batch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OptionError, match="expected a batch of 1 or more, found 0"):
        batched(specs("float[N, 3] x"), {}, 0)
    with pytest.raises(OptionError, match="found 4 in input 'x'; leave --batch out"):
        batched(specs("float[4, 3] x"), {}, 2)
