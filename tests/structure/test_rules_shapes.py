"""Shape arithmetic: sizes that a graph computes for itself follow the widths, or keep their values as numbers."""

from __future__ import annotations

import numpy as np
import pytest

NUMBERS = {
    "zero": np.int64(0), "one": np.int64(1), "two": np.int64(2), "three": np.int64(3), "four": np.int64(4),
    "zeros": np.array([0]), "ones": np.array([1]), "twos": np.array([2]), "fours": np.array([4]),
    "minus": np.array([-1]), "half": np.array([2]), "flat": np.array([2, -1]),
}  # fmt: skip
# From h [2, 8, 6, 7] to r of the same shape, flat on the way: the target is computed in many ways.
FLATTENED = """[s] s = Shape(h)
    {target}
    [f] f = Reshape(h, t)
    [r1] g = Relu(f)
    [back] r = Reshape(g, s)"""
TARGETS = {
    "Gather and Concat": """n = Gather(s, zero) c = Gather(s, one) m = Unsqueeze(n, zeros) d = Unsqueeze(c, zeros)
        t = Concat <axis=0> (m, d, minus)""",
    "Slice": "k = Slice(s, zeros, twos) t = Concat <axis=0> (k, minus)",
    "Slice with axes and steps": "k = Slice(s, zeros, twos, zeros, ones) t = Concat <axis=0> (k, minus)",
    "a product of sizes": """n = Gather(s, zeros) c = Gather(s, ones) p = Mul(n, c) t = Concat <axis=0> (p, minus)""",
    "ReduceProd": "k = Slice(s, zeros, twos) p = ReduceProd <keepdims=1> (k) t = Concat <axis=0> (p, minus)",
    "a quotient and back": """c = Gather(s, ones) q = Div(c, half) p = Mul(q, half) n = Gather(s, zeros)
        t = Concat <axis=0> (n, p, minus)""",
    "Cast": """n = Gather(s, zeros) c = Gather(s, ones) w = Cast <to=6> (c) v = Cast <to=7> (w)
        t = Concat <axis=0> (n, v, minus)""",
    "Squeeze and Unsqueeze": """n = Gather(s, zeros) c = Gather(s, ones) e = Squeeze(c, zeros) d = Unsqueeze(e, zeros)
        t = Concat <axis=0> (n, d, minus)""",
    "Where a literal is -1": """n = Gather(s, zeros) q = Equal(flat, minus) v = Concat <axis=0> (n, minus)
        t = Where(q, v, flat)""",
}


def used(text: str, **more: np.ndarray) -> dict[str, np.ndarray]:
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return {name: value for name, value in {**NUMBERS, **more}.items() if name in words}


@pytest.mark.parametrize("spelling", TARGETS)
def test_a_computed_target_follows_the_widths(between, holds, spelling):
    text = FLATTENED.format(target=TARGETS[spelling])
    holds(between(text, **used(text)), {"c1": 8})


def test_the_start_and_end_of_a_shape(between, holds):
    text = """[s] k = Shape <start=0, end=2> (h)
    t = Concat <axis=0> (k, minus)
    f = Reshape(h, t)
    e = Shape(h)
    r = Reshape(f, e)"""
    holds(between(text, **used(text)), {"c1": 8})


def test_the_number_of_entries_is_a_size(between, holds):
    text = """[n] n = Size(h)
    t = Unsqueeze(n, zeros)
    f = Reshape(h, t)
    s = Shape(h)
    r = Reshape(f, s)"""
    holds(between(text, **used(text)), {"c1": 8})


def test_a_size_that_enters_the_computation_keeps_its_value(between, holds):
    """A mean over channels by hand: the number stays that of the dense network, as it does where units are masked."""
    text = """[s] s = Shape(h)
    c = Gather(s, ones)
    w = Cast <to=1> (c)
    r = Div(h, w)"""
    holds(between(text, **used(text)), {"c1": 8})


def test_a_size_behind_a_choice_that_is_open_freezes(between, refuses):
    """Which of two sizes it is depends on the data: nobody can rewrite that."""
    text = """[s] s = Shape(h)
    n = Gather(s, zeros)
    c = Gather(s, ones)
    m = ReduceMax <keepdims=0> (h)
    q = Greater(m, limit)
    k = Where(q, c, fours)
    t = Concat <axis=0> (n, k, minus)
    f = Reshape(h, t)
    r = Reshape(f, s)"""
    model = between(text, **used(text, limit=np.float32(1e9)))
    refuses(model, {"c1": "Reshape"})
