"""What a rule asks of its node, and how it is refused."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.structure import ONE, Records, fresh
from onnx_subprune.structure.context import Context, NotUnderstood


@pytest.fixture
def ctx() -> Context:
    """Return a context that knows the axes of x."""
    context = Context(Records(17))
    context.axes["x"] = (fresh(2), fresh(4))
    return context


def _node(*inputs: gs.Tensor, **attrs: object) -> gs.Node:
    return gs.Node("Op", "op", attrs, list(inputs), [gs.Variable("y")])


def test_an_input_has_the_rank_that_is_asked_for(ctx: Context) -> None:
    node = _node(gs.Variable("x"), gs.Variable("unknown"))
    assert ctx.input(node, 0, rank=2) == ctx.axes["x"]
    with pytest.raises(NotUnderstood, match="Op 'op' reads 'x' of 2 axes, where 3 are expected"):
        ctx.input(node, 0, rank=3)
    with pytest.raises(NotUnderstood, match="reads 'unknown', whose shape is not known"):
        ctx.input(node, 1)
    with pytest.raises(NotUnderstood, match="lacks input 2"):
        ctx.input(node, 2)


def test_a_constant_has_axes_of_its_own_at_each_use(ctx: Context) -> None:
    bias = gs.Constant("b", np.zeros(4, np.float32))
    first, second = _node(gs.Variable("x"), bias), _node(gs.Variable("x"), bias)
    assert ctx.input(first, 1) == ctx.input(first, 1)
    assert ctx.input(first, 1) != ctx.input(second, 1)
    assert [use.role for use in ctx.records.uses] == ["carrier", "carrier"]


def test_an_axis_counts_from_either_end(ctx: Context) -> None:
    x = ctx.axes["x"]
    assert ctx.axis(_node(), x, -1) == 1
    assert ctx.axis(_node(axis=-2), x, -1) == 0
    assert ctx.axis(_node(time_axis=1), x, 0, "time_axis") == 1
    for axis in (2, -3):
        with pytest.raises(NotUnderstood, match=f"names axis {axis} of a tensor of 2 axes"):
            ctx.axis(_node(axis=axis), x, 0)
    with pytest.raises(NotUnderstood, match="names axis 0 of a tensor of 0 axes"):
        ctx.axis(_node(), (), 0)


def test_attributes_that_are_needed(ctx: Context) -> None:
    node = _node(groups=3, none=0)
    assert ctx.required(node, "groups") == ctx.count(node, "groups") == 3
    with pytest.raises(NotUnderstood, match="lacks its attribute 'blocksize'"):
        ctx.count(node, "blocksize")
    with pytest.raises(NotUnderstood, match="has 0 as its 'none'"):
        ctx.count(node, "none")


def test_ranks_that_have_to_agree(ctx: Context) -> None:
    ctx.same_rank(_node(), ctx.axes["x"], (ONE, ONE))
    with pytest.raises(NotUnderstood, match=r"reads inputs of \[2, 1\] axes"):
        ctx.same_rank(_node(), ctx.axes["x"], (ONE,))


def test_integers_come_from_an_attribute_or_an_input(ctx: Context) -> None:
    listed = gs.Constant("axes", np.array([1, -1]))
    assert ctx.ints(_node(gs.Variable("x"), axes=[0, 1]), 1, "axes") == [0, 1]
    assert ctx.ints(_node(gs.Variable("x"), listed), 1, "axes") == [1, -1]
    with pytest.raises(NotUnderstood, match="takes sizes that are computed from data"):
        ctx.ints(_node(gs.Variable("x"), gs.Variable("computed")), 1)


@pytest.mark.parametrize("prune_normalised", [False, True])
def test_statistics_freeze_their_axis_or_are_noted(prune_normalised: bool) -> None:
    context, dim = Context(Records(17), prune_normalised), fresh(4)
    context.normalise(_node(), {1: dim})
    assert bool(context.records.statistics) == prune_normalised
    assert bool(dim.factors[0].reasons) != prune_normalised
