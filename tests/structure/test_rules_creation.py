"""ConstantOfShape, Range and random tensors: their axes follow the sizes that they are made of."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.structure import Records
from onnx_subprune.structure.context import Context
from onnx_subprune.structure.rules.creation import count

# h [2, 8, 6, 7] of Conv c1; its shape is taken, and something of that shape is added to it.
SIZE = "[s] s = Shape(h)"


@pytest.mark.parametrize(
    "text",
    [
        f"{SIZE}\n[z] z = ConstantOfShape <value=float[1] {{0.5}}> (s)\n[a] r = Add(h, z)",
        f"{SIZE}\n[z] z = ConstantOfShape(s)\n[a] r = Add(z, h)",
        f"{SIZE}\n[o] o = ConstantOfShape <value=float[1] {{1}}> (s)\n[a] r = Mul(h, o)",
    ],
    ids=["a half", "zeros", "ones"],
)
def test_a_constant_of_the_shape_of_a_tensor_shrinks_with_it(between, holds, text):
    holds(between(text), {"c1": 8})


def test_a_constant_of_given_sizes_holds_copies(between, holds):
    """All entries are the same: any may go, and the number in the shape is rewritten."""
    holds(between("[z] z = ConstantOfShape <value=float[1] {2}> (k)\n[a] r = Mul(h, z)", k=np.array([1, 8, 1, 1])),
          {"c1": 8})  # fmt: skip


def test_positions_counted_along_another_axis_do_not_matter(between, holds):
    text = """[s] s = Shape(h)
    [g] n = Gather(s, three)
    [r] i = Range(zero, n, one)
    [c] f = Cast <to=1> (i)
    [a] r = Add(h, f)"""
    holds(between(text, three=np.int64(3), zero=np.int64(0), one=np.int64(1)), {"c1": 8})


def test_numbers_of_channels_are_numbers(between, refuses):
    """A Range over the channels gives each its own number: after pruning others would get them."""
    text = """[s] s = Shape(h)
    [g] n = Gather(s, axis)
    [r] i = Range(zero, n, one)
    [c] f = Cast <to=1> (i)
    [p] k = Reshape(f, column)
    [a] r = Add(h, k)"""
    given = {"axis": np.int64(1), "zero": np.int64(0), "one": np.int64(1), "column": np.array([8, 1, 1])}
    refuses(between(text, **given), {"c1": "Range"})


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike"])
def test_a_random_tensor_of_this_size_freezes_it(between, refuses, op):
    refuses(between(f"[n] n = {op} <seed=1.0> (h)\n[a] r = Add(h, n)"), {"c1": f"{op} 'n' makes a tensor of this size"})


def test_an_identity_matrix_of_this_size_freezes_it(net, refuses):
    model = net(
        """g (float[8,4] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [e] e = EyeLike(h)
            [a] r = Add(h, e)
            [m2] y = MatMul(r, w2)
        }""",
        w1=(4, 6), w2=(6, 3),
    )  # fmt: skip
    refuses(model, {"m1": "EyeLike 'e' makes a tensor of this size"})


def test_positions_that_do_not_start_at_nothing_are_an_axis_of_their_own(between, refuses):
    """From 1 to the width and one: as many entries as channels, but none of them may go."""
    text = """[s] s = Shape(h)
    [g] n = Gather(s, one)
    [m] m = Add(n, one)
    [r] i = Range(one, m, one)
    [u] u = Unsqueeze(i, behind)
    [c] f = Cast <to=1> (u)
    [a] r = Mul(h, f)"""
    model = between(text, one=np.int64(1), behind=np.array([1, 2]))
    refuses(model, {"c1": "computes with the size of this axis"})


@pytest.mark.parametrize(("start", "limit", "step"), [(0, 8, 1), (8, 0, -1), (1, 24, 3), (0, -8, -1), (3, 4, 1)])
def test_literal_positions_are_counted(start, limit, step):
    node = gs.Node(
        "Range", "r", {}, [gs.Constant(f"k{i}", np.array(v)) for i, v in enumerate((start, limit, step))],
        [gs.Variable("y")],
    )  # fmt: skip
    ctx = Context(Records(17))
    count(node, ctx)
    (dim,) = ctx.axes["y"]
    assert dim.size == len(np.arange(start, limit, step))
    assert all(atom.reasons == ["Range 'r' makes this axis"] for atom in dim.atoms())
