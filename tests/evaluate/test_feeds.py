"""Random inputs that any model can run on, and models that are compared on equal ones only."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.evaluate.feeds import check_same_inputs, made_up, random_feeds, sizes_that_run
from onnx_subprune.model import input_specs, open_session, run


def single(declared: str) -> onnx.ModelProto:
    kind = declared.split("[", maxsplit=1)[0]
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({declared} x) => ({kind}[?] y) {{ y = Identity(x) }}'
    )


@pytest.mark.parametrize("kind", ["float", "float16", "double", "bfloat16"])
def test_floats_are_normal_and_of_their_type(kind: str) -> None:
    specs = input_specs(single(f"{kind}[N,50]"))
    (x,) = random_feeds(specs, {"x": (40, 50)}).values()
    assert x.shape == (40, 50)
    assert x.dtype == specs[0].dtype
    values = x.astype(np.float64)
    assert abs(values.mean()) < 0.1
    assert values.std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("kind", ["int64", "int32", "uint8", "bool"])
def test_integers_are_such_that_any_vocabulary_or_mask_holds(kind: str) -> None:
    (x,) = random_feeds(input_specs(single(f"{kind}[N]")), {"x": (64,)}).values()
    assert set(np.unique(x.astype(int))) == {0, 1}


FOLDED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 1, h, w] x) => (float[a, b] y) <int64[2] rows = {-1, SIZE}> { y = Reshape (x, rows) }"""


def test_sizes_are_the_first_with_which_a_model_runs() -> None:
    folded = onnx.parser.parse_model(FOLDED.replace("SIZE", "4096"))
    assert sizes_that_run(folded) == {"x": (1, 1, 64, 64)}
    assert sizes_that_run(folded, {"x": (2, 1, 5, 7)}) == {"x": (2, 1, 5, 7)}
    assert sizes_that_run(onnx.parser.parse_model(FOLDED.replace("SIZE", "5"))) == {"x": (1, 1, 224, 224)}


def test_a_refusal_of_made_up_inputs_says_how_to_give_better_ones() -> None:
    folded = onnx.parser.parse_model(FOLDED.replace("SIZE", "5"))
    feeds = random_feeds(input_specs(folded), {"x": (1, 1, 2, 2)})
    with (
        pytest.raises(ModelError, match=r"inputs made up for it: Reshape: .*\{1,1,2,2\}.*--input-shapes.*--data"),
        made_up(),
    ):
        run(open_session(folded), feeds)
    with pytest.raises(ModelError, match=r"^ONNX Runtime failed while running"), made_up(made=False):
        run(open_session(folded), feeds)
    with pytest.raises(ModelError, match=r"^another fault"), made_up():
        raise ModelError("another fault")


def test_a_seed_gives_the_same_values() -> None:
    specs = input_specs(single("float[N]"))
    first, same, other = (random_feeds(specs, {"x": (8,)}, seed)["x"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_an_input_without_a_shape_or_of_text_is_refused() -> None:
    with pytest.raises(OptionError, match=r"shape for input 'x' expected.*--input-shapes"):
        random_feeds(input_specs(single("float[N]")), {})
    with pytest.raises(OptionError, match="expected to hold numbers"):
        random_feeds(input_specs(single("string[N]")), {"x": (2,)})


FEEDS: dict[str, Any] = {"x": np.zeros((1, 3), np.float32)}


@pytest.mark.parametrize("other", ["float[N,3]", "float[M,3]", "float[2,3]", "float[N,K]"])
def test_inputs_that_are_alike_are_compared(other: str) -> None:
    check_same_inputs([single("float[N,3]"), single(other)], FEEDS)


@pytest.mark.parametrize("other", ["float16[N,3]", "float[N,4]", "float[N]", "int64[N,3]"])
def test_inputs_that_differ_are_refused_by_name(other: str) -> None:
    with pytest.raises(OptionError, match="model 2 expected to take the inputs of the first, found 'x'"):
        check_same_inputs([single("float[N,3]"), single(other)], FEEDS)


def test_an_input_that_one_lacks_is_named() -> None:
    two = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x, float[N,3] z) => (float[N,3] y) { y = Add(x, z) }'
    )
    with pytest.raises(OptionError, match=r"found 'z' .* where that has nothing"):
        check_same_inputs([single("float[N,3]"), two], FEEDS)
    with pytest.raises(OptionError, match="found nothing where that has 'z'"):
        check_same_inputs([two, single("float[N,3]")], FEEDS)
    with pytest.raises(OptionError, match="'z' is missing or unknown"):
        check_same_inputs([two], FEEDS)
