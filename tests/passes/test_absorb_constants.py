"""Constants that branches left behind go into biases, and nowhere that they would change anything."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.passes import AbsorbConstants

CONV = "[c1] h = Conv(x, w1, b1)"
LEFT = np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1, 1)


@pytest.fixture
def absorb(build, structured, draw, apply, same_outputs):
    """`absorb(text, expected operators, **constants)`: run the pass on the constants named `left`, compare outputs."""

    def check(text, expected, names=("left",), short=(), **constants):
        known = {"w1": draw(4, 3, 1, 1), "b1": draw(4), "left": LEFT, **constants}
        words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
        model = build(
            f"g (float[2,3,5,5] x) => (float[2,4,5,5] y) {{ {text} }}",
            **{name: value for name, value in known.items() if name in words},
        )
        surgery = AbsorbConstants(structured(model), {}, names, short)
        after = apply(model, surgery)
        assert [node.op_type for node in after.graph.node] == list(expected)
        same_outputs(model, after)
        return after

    return check


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{CONV} a = Add(h, left) y = Relu(a)", ["Conv", "Relu"]),
        (f"{CONV} a = Add(left, h) y = Relu(a)", ["Conv", "Relu"]),
        (f"{CONV} r = Relu(h) i = Add(r, other) a = Add(i, left) y = Relu(a)", ["Conv", "Relu", "Add", "Relu"]),
        (f"{CONV} [c2] g = Conv(x, w2) i = Add(g, h) a = Add(i, left) y = Relu(a)", ["Conv", "Conv", "Add", "Relu"]),
        ("[c1] h = ConvTranspose(x, w3, b1) a = Add(h, left) y = Relu(a)", ["ConvTranspose", "Relu"]),
    ],
    ids=["a bias", "turned round", "another constant", "through a sum", "ConvTranspose"],
)
def test_into_the_place_where_the_other_operand_is_made(absorb, draw, text, expected):
    absorb(text, expected, other=draw(4, 1, 1), w2=draw(4, 3, 1, 1, seed=5), w3=draw(3, 4, 1, 1))


@pytest.mark.parametrize(
    "text",
    [
        "[c1] h = Conv(x, w1) a = Add(h, left) y = Relu(a)",
        f"{CONV} r = Relu(h) a = Add(r, left) y = Relu(a)",
        f"{CONV} r = Relu(h) a = Add(h, left) i = Mul(a, r) y = Relu(i)",
        f"{CONV} b2 = Identity(b1) [c2] g = Conv(x, w1, b2) a = Add(g, left) i = Add(a, h) y = Relu(i)",
    ],
    ids=["no bias", "behind a Relu", "read by two", "a bias that is computed"],
)
def test_what_cannot_be_moved_stays(absorb, text):
    operators = [word for word in text.replace("(", " ").split() if word[0].isupper()]
    absorb(text, operators)


def test_constants_of_the_user_stay_where_they_are(absorb):
    absorb(f"{CONV} a = Add(h, left) y = Relu(a)", ["Conv", "Add", "Relu"], names=())


def test_tensors_of_another_shape_than_the_graph_says_are_left_alone(absorb):
    absorb(f"{CONV} a = Add(h, left) y = Relu(a)", ["Conv", "Add", "Relu"], short=("a",))


def test_nothing_is_added(absorb):
    """Zeros go, even where there is no bias; where they widen a tensor, they stay."""
    zeros = np.zeros((1, 4, 1, 1), np.float32)
    absorb("[c1] h = Conv(x, w1) a = Add(h, left) y = Relu(a)", ["Conv", "Relu"], left=zeros)
    wide = np.zeros((2, 4, 5, 5), np.float32)
    text = "[c1] h = Conv(x, w1) m = ReduceMean <axes=[2,3]> (h) a = Add(m, left) y = Relu(a)"
    absorb(text, ["Conv", "ReduceMean", "Add", "Relu"], left=wide)


def test_an_output_keeps_its_name(absorb):
    after = absorb(f"{CONV} y = Add(h, left)", ["Conv", "Identity"])
    assert after.graph.node[-1].output[0] == "y"


def test_a_bias_that_others_read_stays_theirs(absorb, draw):
    after = absorb(
        f"{CONV} [c2] g = Conv(x, w2, b1) a = Add(h, left) i = Add(a, g) y = Relu(i)",
        ["Conv", "Conv", "Add", "Relu"], w2=draw(4, 3, 1, 1, seed=5),
    )  # fmt: skip
    first, second = after.graph.node[:2]
    assert first.input[2] != second.input[2] == "b1"


@pytest.mark.parametrize(("beta", "expected"), [(2.0, ["Gemm", "Relu"]), (0.0, ["Gemm", "Add", "Relu"])])
def test_the_bias_of_a_gemm_is_scaled(build, structured, draw, apply, same_outputs, beta, expected):
    model = build(
        f"g (float[2,3] x) => (float[2,4] y) {{ h = Gemm <beta={beta}> (x, w, b) a = Add(h, left) y = Relu(a) }}",
        w=draw(3, 4), b=draw(4), left=draw(4, seed=3),
    )  # fmt: skip
    after = apply(model, AbsorbConstants(structured(model), {}, ("left",), ()))
    assert [node.op_type for node in after.graph.node] == expected
    same_outputs(model, after)
