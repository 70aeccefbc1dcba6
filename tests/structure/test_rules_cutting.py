"""Split, Slice, Gather, Pad: pieces of an axis, and entries added to one."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest


def _ints(**weights):
    return {name: np.array(values, np.int64) for name, values in weights.items()}


@pytest.mark.parametrize(
    ("opset", "split", "weights"),
    [
        (11, "Split <axis=1, split=[3,5]> (h)", {}),
        (13, "Split <axis=1> (h, k)", _ints(k=[3, 5])),
        (13, "Split <axis=-3> (h, k)", _ints(k=[3, 5])),
    ],
)
def test_split_with_sizes(between, holds, opset, split, weights):
    """The pieces are groups of their own, and their sizes are rewritten."""
    text = f"[s] a, b = {split}\n[e] e = Relu(a)\n[cat] r = Concat <axis=1> (b, e)"
    holds(between(text, opset=opset, **weights), {"c1": 3, "c1#2": 5})


@pytest.mark.parametrize(
    ("opset", "split"),
    [(7, "Split <axis=1> (h)"), (13, "Split <axis=1> (h)"), (18, "Split <axis=1, num_outputs=2> (h)")],
)
def test_split_in_equal_parts_ties_them(between, holds, opset, split):
    text = f"[s] a, b = {split}\n[e] e = Sigmoid(a)\n[m] r = Mul(b, e)"
    holds(between(text, opset=opset, out=4), {"c1": 4})


def test_equal_parts_that_go_different_ways_stay_equal(between, holds):
    text = "[s] a, b = Split <axis=1> (h)\n[e] e = Relu(a)\n[cat] r = Concat <axis=1> (b, e)"
    holds(between(text), {"c1": 4})


def test_a_last_part_that_is_smaller_freezes(between, refuses):
    text = "[s] a, b, c = Split <axis=1, num_outputs=3> (h)\n[cat] r = Concat <axis=1> (a, c, b)"
    refuses(between(text, opset=18), {"c1": "different size"})


def test_split_of_other_axes(between, holds):
    text = "[s] a, b = Split <axis=2> (h, k)\n[cat] r = Concat <axis=2> (b, a)"
    holds(between(text, **_ints(k=[2, 4])), {"c1": 8})


def test_split_in_the_middle_of_a_unit_freezes(net, refuses):
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [r] r = Reshape(h, to)
            [t] t = Transpose <perm=[0,2,1]> (r)
            [f] f = Reshape(t, from)
            [s] a, b = Split <axis=1> (f, sizes)
            [m2] y = MatMul(b, w2)
        }""",
        w1=(6, 12), w2=(7, 3), **_ints(to=[2, 3, 4], **{"from": [2, 12]}, sizes=[5, 7]),
    )  # fmt: skip
    refuses(model, {"m1": "cuts this axis in the middle of a unit"})


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 3), (3, 8), (2, 6), (-3, 8), (2, -1), (-6, -2), (0, 100), (3, 2**31 - 1), (-100, 4), (1, 2**63 - 1)],
)  # fmt: skip
def test_slice_of_the_channels(net, holds, start, end):
    taken = len(range(8)[start:end])
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Slice(h, start, end, axis)
            [c2] u = Conv(s, w2)
            [c3] v = Conv(h, w3)
            [a] y = Add(u, v)
        }""",
        w1=(8, 3, 1, 1), w2=(4, taken, 1, 1), w3=(4, 8, 1, 1), **_ints(start=[start], end=[end], axis=[-3]),
    )  # fmt: skip
    before = len(range(8)[:start]) if start else 0
    # A piece of one channel is no group: a group keeps a unit.
    sizes = [n for n in (before, taken, 8 - taken - before) if n > 1]
    holds(model, {"c1" if i == 0 else f"c1#{i + 1}": n for i, n in enumerate(sizes)})


@pytest.mark.parametrize("opset", [7, 9, 10, 13])
def test_slice_of_every_form(between, holds, opset):
    if opset < 10:
        text = "[s] a = Slice <axes=[1,2], starts=[0,1], ends=[5,9]> (h)"
        text += "\n[t] b = Slice <axes=[1,2], starts=[5,1], ends=[8,6]> (h)"
        weights = {}
    else:
        text = "[s] a = Slice(h, s1, e1, k)\n[t] b = Slice(h, s2, e2, k, one)"
        weights = _ints(s1=[0, 1], e1=[5, 9], s2=[5, 1], e2=[8, 6], k=[1, 2], one=[1, 1])
    text += "\n[c] r = Concat <axis=1> (b, a)"
    holds(between(text, opset=opset, **weights), {"c1": 5, "c1#2": 3})


def test_slice_without_axes(between, holds):
    weights = _ints(s=[0, 2, 0], e=[2**31 - 1, 8, 4])
    holds(between("[s] r = Slice(h, s, e)", out=6, **weights), {"c1#2": 6})


def test_two_slices_that_share_their_bounds_are_rewritten_apart(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [c2] k = Conv(x, w2)
            [s] s = Slice(h, zero, four, one)
            [t] t = Slice(k, zero, four, one)
            [cat] r = Concat <axis=1> (s, t)
            [c3] y = Conv(r, w3)
        }""",
        w1=(8, 3, 1, 1), w2=(6, 3, 1, 1), w3=(4, 8, 1, 1), **_ints(zero=[0], four=[4], one=[1]),
    )  # fmt: skip
    structure = holds(model, {"c1": 4, "c2": 4})
    assert [group.reasons for group in structure.frozen[:2]] == [("no weight downstream contracts it",)] * 2


@pytest.mark.parametrize(
    ("start", "end", "step", "out"),
    [(7, -100, -1, 8), (-1, -9, -2, 4), (0, 7, 2, 4), (0, 8, 3, 3), (3, 8, 2, 3), (0, 8, 8, 1)],
)
def test_slice_with_a_step_freezes(between, refuses, start, end, step, out):
    weights = _ints(s=[start], e=[end], k=[1], p=[step])
    refuses(between("[s] r = Slice(h, s, e, k, p)", out=out, **weights), {"c1": "takes only some positions"})


@pytest.mark.parametrize(("end", "step"), [(16, 2), (2**31 - 1, 2), (2**63 - 1, 4)])
def test_every_other_channel(net, holds, end, step):
    """Rotary embeddings of interleaved pairs: the channels go in whole blocks."""
    pieces = "\n".join(
        f"[s{i}] s{i} = Slice(h, n{i}, end, axis, step)\n[u{i}] u{i} = Unsqueeze(s{i}, last)" for i in range(step)
    )
    turned = ", ".join(f"u{i}" for i in reversed(range(step)))
    model = net(
        f"""g (float[2,5,3] x) => (float[a,b,c] y) {{
            [m1] h = MatMul(x, w1)
            {pieces}
            [cat] k = Concat <axis=3> ({turned})
            [r] r = Reshape(k, flat)
            [p] p = Mul(r, table)
            [a] a = Add(p, h)
            [m2] y = MatMul(a, w2)
        }}""",
        w1=(3, 16), w2=(16, 4), table=(5, 16),
        **_ints(**{f"n{i}": [i] for i in range(step)}, end=[end], axis=[2], step=[step], last=[3], flat=[0, 0, -1]),
    )  # fmt: skip
    holds(model, {"m1": 16 // step})


def test_halves_by_bounds_computed_from_the_channels(net, holds):
    """The old export of chunk: half = (channels + 1) / 2, at run time."""
    model = net(
        """g (float[N,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(h)
            [n] n = Gather <axis=0> (s, one)
            [p] p = Add(n, unit)
            [d] half = Div(p, two)
            [k] whole = Mul(half, two)
            [s1] a = Slice(h, zero, half, one)
            [s2] b = Slice(h, half, whole, one)
            [e] e = Sigmoid(a)
            [m] r = Mul(b, e)
            [c2] y = Conv(r, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 4, 1, 1), **_ints(one=[1], unit=[1], two=[2], zero=[0]),
    )  # fmt: skip
    holds(model, {"c1": 4}, run_shapes={"x": (3, 3, 5, 5)})


def test_bounds_that_follow_by_themselves_are_replaced_where_they_would_not(net, holds):
    """Unequal pieces cut at half the channels: 'half' no longer is where the first piece ends."""
    model = net(
        """g (float[N,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(h)
            [n] n = Gather <axis=0> (s, one)
            [d] half = Div(n, two)
            [s1] a = Slice(h, zero, half, one)
            [s2] b = Slice(h, half, n, one)
            [c2] u = Conv(a, w2)
            [c3] v = Conv(b, w3)
            [add] y = Add(u, v)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 4, 1, 1), w3=(4, 4, 1, 1), **_ints(one=[1], two=[2], zero=[0]),
    )  # fmt: skip
    holds(model, {"c1": 4, "c1#2": 4}, run_shapes={"x": (3, 3, 5, 5)})


@pytest.mark.parametrize(
    ("indices", "sizes"),
    [(range(2, 6), [2, 4, 2]), (range(8), [8]), (range(5, 8), [5, 3]), ([-8, -7, -6], [3, 5]), ([4], [4, 1, 3])],
)
def test_gather_of_a_run_of_channels_is_a_slice(net, holds, indices, sizes):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Gather <axis=1> (h, k)
            [c2] u = Conv(s, w2)
            [c3] v = Conv(h, w3)
            [a] y = Add(u, v)
        }""",
        w1=(8, 3, 1, 1), w2=(4, len(indices), 1, 1), w3=(4, 8, 1, 1), **_ints(k=list(indices)),
    )  # fmt: skip
    names = [n for n in sizes if n > 1]
    holds(model, {"c1" if i == 0 else f"c1#{i + 1}": n for i, n in enumerate(names)})


@pytest.mark.parametrize("indices", [[*range(8)][::-1], [0, 2, 4, 6, 1, 3, 7, 5]])
def test_gather_that_leaves_no_two_channels_together_freezes(between, refuses, indices):
    text = "[g] r = Gather <axis=1> (h, k)"
    refuses(between(text, out=len(indices), **_ints(k=indices)), {"c1": "picks single positions"})


@pytest.mark.parametrize(
    ("indices", "sizes"),
    [
        ([4, 5, 6, 7, 0, 1, 2, 3], [4, 4]),
        ([5, 6, 7, 0, 1], [2, 3, 3]),
        ([0, 1, 2, 0, 1, 2], [3, 5]),
        ([1, 2, 3, 4, 5, 3, 4, 5, 6, 7], [2, 3, 2]),
        ([-1, 0, 1, 2], [3, 4]),
        ([3, 0], [2, 4]),
        ([5, 5], [5, 2]),
    ],
)
def test_gather_of_several_runs_of_channels(net, holds, indices, sizes):
    """Runs are pieces laid end to end, in any order and more than once; a channel between them stays."""
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Gather <axis=1> (h, k)
            [c2] u = Conv(s, w2)
            [c3] v = Conv(h, w3)
            [a] y = Add(u, v)
        }""",
        w1=(8, 3, 1, 1), w2=(4, len(indices), 1, 1), w3=(4, 8, 1, 1), **_ints(k=indices),
    )  # fmt: skip
    holds(model, {"c1" if i == 0 else f"c1#{i + 1}": n for i, n in enumerate(sizes)})


@pytest.mark.parametrize("indices", [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3, 0, 1, 2, 3]])
@pytest.mark.parametrize("operator", ["Gather <axis=2> (r, k)", "GatherND(f, k2)"])
def test_heads_repeated_by_their_indices(net, holds, indices, operator):
    """Key and value heads repeated for grouped queries: a head goes with all its copies."""
    before, after = ("", "") if operator.startswith("Gather ") else (
        "[f] f = Transpose <perm=[2,0,1,3]> (r)", "[b] b = Transpose <perm=[1,2,0,3]> (g)"
    )  # fmt: skip
    text = f"{before}\n[g] {'g' if before else 'b'} = {operator}\n{after}"
    model = net(
        f"""g (float[N,5,6] x) => (float[a,b,c] y) {{
            [m1] h = MatMul(x, w1)
            [r] r = Reshape(h, heads)
            {text}
            [j] j = Reshape(b, flat)
            [m2] y = MatMul(j, w2)
        }}""",
        w1=(6, 12), w2=(24, 4), **_ints(heads=[0, 0, 4, 3], flat=[0, 0, -1]),
        **({"k2": np.array(indices)[:, None]} if before else {"k": np.array(indices)}),
    )  # fmt: skip
    holds(model, {"m1": 4, "m1#2": 3}, {"x": (2, 5, 6)}, run_shapes={"x": (3, 5, 6)})


def test_gather_of_one_channel_keeps_it(between, holds):
    """A channel that scales the others is cut out and stays; its position is counted anew."""
    text = "[g] g = Gather <axis=1> (h, k)\n[u] u = Unsqueeze(g, one)\n[m] r = Mul(u, h)"
    holds(between(text, k=np.array(-5), one=np.array([1])), {"c1": 3, "c1#2": 4})


def test_gather_of_positions_passes_the_channels(between, holds):
    holds(between("[g] r = Gather <axis=-1> (h, k)", **_ints(k=[5, 1, 1])), {"c1": 8})


def test_a_gather_that_reorders_positions_a_weight_makes(net, holds):
    """The picked positions meet an axis that can be pruned: the list of positions is shortened with it."""
    model = net(
        """g (float[2,7,6] x) => (float[a,b,c] y) {
            [m0] h = MatMul(x, w0)
            [g] g = Gather <axis=1> (h, k)
            [m1] t = MatMul(w1, x)
            [m2] u = MatMul(t, w2)
            [a] a = Add(g, u)
            [m3] y = MatMul(w3, a)
        }""",
        w0=(6, 4), w1=(5, 7), w2=(6, 4), w3=(3, 5), **_ints(k=[6, 0, 3, 3, 1]),
    )  # fmt: skip
    structure = holds(model, {"m1": 5})
    assert {use.constant.name for use in structure.prunable[0].carriers} == {"k"}


def test_an_embedding_makes_the_axes_of_its_rows(net, holds):
    model = net(
        """g (int64[2,5] tokens) => (float[a,b,c] y) {
            [emb] e = Gather(table, tokens)
            [p] p = Add(e, positions)
            [m] y = MatMul(p, w)
        }""",
        table=(11, 8), positions=(5, 8), w=(8, 3),
    )  # fmt: skip
    structure = holds(model, {"emb": 8})
    assert [use.constant.name for use in structure.prunable[0].producers] == ["table"]


def test_a_table_tied_to_the_output_projection(net, holds):
    model = net(
        """g (int64[2,5] tokens) => (float[a,b,c] y) {
            [emb] e = Gather(table, tokens)
            [m1] h = MatMul(e, w1)
            [r] r = Relu(h)
            [m2] d = MatMul(r, w2)
            [a] a = Add(e, d)
            [t] t = Transpose(table)
            [head] y = MatMul(a, t)
        }""",
        table=(11, 8), w1=(8, 12), w2=(12, 8),
    )  # fmt: skip
    structure = holds(model, {"emb": 8, "m1": 12})
    assert [consumer.name for consumer in structure.prunable[0].consumers] == ["m1", "head"]


@pytest.mark.parametrize(
    ("opset", "text", "weights"),
    [
        (7, '[p] r = Pad <pads=[0,0,1,2,0,0,3,0], mode="constant"> (h)', {}),
        (11, '[p] r = Pad <mode="reflect"> (h, k)', _ints(k=[0, 0, 1, 2, 0, 0, 3, 0])),
        (13, "[p] r = Pad(h, k, v)", {**_ints(k=[0, 0, 1, 2, 0, 0, 3, 0]), "v": np.float32(0.5)}),
        (13, '[p] r = Pad <mode="edge"> (h, k)', _ints(k=[0, 0, 1, 2, 0, 0, 3, 0])),
        (13, "[p] r = Pad(h, k)", _ints(k=[0, 0, -1, 2, 0, 0, 0, -1])),
        (18, "[p] r = Pad(h, k, , a)", _ints(k=[1, 2, 3, 0], a=[2, 3])),
        (19, '[p] r = Pad <mode="wrap"> (h, k, , a)', _ints(k=[1, 2, 3, 0], a=[-2, -1])),
    ],
)
def test_padding_the_positions(between, holds, opset, text, weights):
    holds(between(text, opset=opset, **weights), {"c1": 8})


@pytest.mark.parametrize("opset", [7, 13])
def test_channels_padded_by_zeros_are_tied_across_the_stages(net, holds, opset):
    """CIFAR option A: the shortcut is subsampled and its channels padded on both sides."""
    pad = "Pad <pads=[0,3,0,0,0,2,0,0]> (s)" if opset < 11 else "Pad(s, pads)"
    sliced = "Slice <axes=[2,3], starts=[0,0], ends=[9,9]> (h)" if opset < 10 else "Slice(h, zero, end, hw, two)"
    stride = 1 if opset < 10 else 2
    model = net(
        f"""g (float[2,3,6,6] x) => (float[a,b,c,d] y) {{
            [c0] i = Conv(x, w0, b0)
            [c1] a = Conv(i, w1)
            [add1] h = Add(i, a)
            [c2] b = Conv <strides=[{stride},{stride}]> (h, w2)
            [s] s = {sliced}
            [p] p = {pad}
            [add2] k = Add(b, p)
            [c3] y = Conv(k, w3)
        }}""",
        opset=opset, w0=(8, 3, 1, 1), b0=(8,), w1=(8, 8, 1, 1), w2=(13, 8, 1, 1), w3=(4, 13, 1, 1),
        **({} if opset < 11 else _ints(pads=[0, 3, 0, 0, 0, 2, 0, 0], zero=[0, 0], end=[9, 9], hw=[2, 3], two=[2, 2])),
    )  # fmt: skip
    structure = holds(model, {"c0": 8, "c2": 3, "c2#2": 2})
    assert [use.node.name for use in structure.prunable[0].producers] == ["c0", "c1", "c2"]


def test_channels_padded_by_a_value_are_units_like_others(between, holds):
    text = "[p] p = Pad(h, k, v)\n[e] r = Relu(p)"
    weights = {**_ints(k=[0, 2, 0, 0, 0, 1, 0, 0]), "v": np.float32(0.7)}
    holds(between(text, out=11, **weights), {"c1": 8})


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_channels_padded_by_their_neighbours_freeze(between, refuses, mode):
    text = f'[p] r = Pad <mode="{mode}"> (h, k)'
    refuses(between(text, out=11, **_ints(k=[0, 2, 0, 0, 0, 1, 0, 0])), {"c1": "pads this axis"})


def test_channels_that_are_cropped_freeze(between, refuses):
    refuses(between("[p] r = Pad(h, k)", out=6, **_ints(k=[0, -1, 0, 0, 0, -1, 0, 0])), {"c1": "pads this axis"})


def test_the_indices_of_a_table_of_bias_are_shortened(net, holds):
    """Relative positions: Gather of a table by a constant matrix is a constant once folded."""
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(w1, x)
            [b] b = Gather(table, index)
            [r] k = ReduceSum <keepdims=0> (b, last)
            [a] a = Add(h, k)
            [m2] y = MatMul(w2, a)
        }""",
        w1=(4, 5), table=(9, 3), w2=(3, 4), index=np.arange(24).reshape(4, 6) % 9, last=np.array([2]),
    )  # fmt: skip
    assert isinstance(model, onnx.ModelProto)
    holds(model, {"m1": 4})


def test_split_by_sizes_known_at_run_time_is_a_barrier(net, refuses):
    model = net(
        """g (float[N,3,5,5] x) => (float[a] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(x)
            [n] n = Gather <axis=0> (s, first)
            [k] k = Concat <axis=0> (n, n)
            [p] a, b = Split <axis=1> (h, k)
            [t] t = Add(a, b)
            [m] y = ReduceMax <axes=[1,2,3], keepdims=0> (t)
        }""",
        w1=(8, 3, 1, 1), **_ints(first=[0]),
    )  # fmt: skip
    refuses(model, {"c1": "Split 'p' takes sizes that are known at run time only"}, {"x": (4, 3, 5, 5)})


def test_split_by_sizes_computed_from_the_channels(net, holds):
    """The old export of torch.split with a computed size; the computed halves are replaced where they differ."""
    model = net(
        """g (float[N,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(h)
            [n] n = Gather <axis=0> (s, one)
            [d] half = Div(n, two)
            [k] k = Concat <axis=0> (half, half)
            [p] a, b = Split <axis=1> (h, k)
            [c2] u = Conv(a, w2)
            [c3] v = Conv(b, w3)
            [t] y = Add(u, v)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 4, 1, 1), w3=(4, 4, 1, 1), **_ints(one=[1], two=[2]),
    )  # fmt: skip
    holds(model, {"c1": 4, "c1#2": 4}, run_shapes={"x": (3, 3, 5, 5)})


def test_slices_of_an_axis_of_unknown_size(net, holds):
    """Positions up to a bound, and up to their own end, of an axis known at run time only; the channels pass."""
    model = net(
        """g (float[N,T,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [s] s = Shape(h)
            [t] t = Gather <axis=0> (s, one)
            [a] a = Slice(h, zero, t, one)
            [b] b = Slice(a, one, two, one)
            [d] d = Slice(b, zero, one, zero)
            [k] k = Add(d, b)
            [m2] y = MatMul(k, w2)
        }""",
        w1=(6, 8), w2=(8, 3), **_ints(one=[1], two=[2], zero=[0]),
    )  # fmt: skip
    holds(model, {"m1": 8}, {"x": (2, 4, 6)}, run_shapes={"x": (3, 5, 6)})


def test_indices_counted_from_the_channels_freeze_them(net, refuses):
    model = net(
        """g (float[2,9] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [s] s = Shape(h)
            [n] n = Gather <axis=0> (s, one)
            [g] g = Gather <axis=1> (x, n)
            [a] a = Mul(h, g)
            [m2] y = MatMul(a, w2)
        }""",
        w1=(9, 8), w2=(8, 3), **_ints(one=[1]),
    )  # fmt: skip
    refuses(model, {"m1": "computes with the size of this axis"})


@pytest.mark.parametrize(("start", "end"), [(8, 2**31 - 1), (9, 100), (5, 2), (3, 3), (-2, -4), (5, -5)])
def test_a_slice_that_takes_nothing(net, holds, start, end):
    """Rotary embeddings of all channels: the rest, which is none, is laid behind them."""
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Slice(h, start, end, one)
            [e] e = Sin(h)
            [k] k = Concat <axis=1> (e, s)
            [c2] y = Conv(k, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1), **_ints(start=[start], end=[end], one=[1]),
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_a_slice_that_takes_nothing_only_as_yet_is_a_barrier(net, refuses):
    """The last two channels, but none of the first three: with four channels there would be one."""
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Slice(h, start, end, one)
            [e] e = Sin(h)
            [k] k = Concat <axis=1> (e, s)
            [c2] y = Conv(k, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1), **_ints(start=[-2], end=[3], one=[1]),
    )  # fmt: skip
    refuses(model, {"c1": "takes an empty range"})


def test_the_first_positions_of_a_table_follow_the_sequence(net, holds):
    """Position embeddings: the axis cut to the length of the sequence is the axis of the sequence, so heads split."""
    model = net(
        """g (float[N,T,6] x) => (float[a,b,c] y) {
            [up] h = MatMul(x, w1)
            [s] s = Shape <start=1, end=2> (x)
            [cut] p = Slice(table, zero, s, one)
            [add] q = Add(h, p)
            [all] n = Shape <start=0, end=2> (x)
            [target] t = Concat <axis=0> (n, split)
            [r] r = Reshape(q, t)
            [tr] k = Transpose <perm=[0,2,1,3]> (r)
            [back] u = Transpose <perm=[0,2,1,3]> (k)
            [merge] v = Reshape(u, flat)
            [down] y = MatMul(v, w2)
        }""",
        w1=(6, 12), w2=(12, 5), table=(1, 9, 12), zero=np.array([0]), one=np.array([1]),
        split=np.array([-1, 4]), flat=np.array([0, 0, -1]),
    )  # fmt: skip
    holds(model, {"up": 3, "up#2": 4}, {"x": (2, 7, 6)}, run_shapes={"x": (3, 5, 6)})


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("CenterCropPad <axes=[2,3]> (h, shape)", [4, 9]),
        ("CenterCropPad <axes=[-1,1]> (h, shape)", [9, 8]),
        ("CenterCropPad(h, shape)", [2, 8, 4, 7]),
    ],
)
def test_both_ends_are_cut_or_padded(between, holds, text, shape):
    holds(between(f"[p] r = {text}", opset=19, shape=np.array(shape)), {"c1": 8})


def test_channels_that_are_cut_at_both_ends_stay(between, refuses):
    model = between("[p] r = CenterCropPad <axes=[1]> (h, shape)", opset=19, out=6, shape=np.array([6]))
    refuses(model, {"c1": "CenterCropPad 'p' cuts or pads both ends of this axis"})


@pytest.mark.parametrize(
    ("text", "out"),
    [
        ("com.microsoft.Pad(h, pads, value)", 8),
        ("com.microsoft.ExpandDims(h, one)\n q = Squeeze(k, ones)", 8),
        ("com.microsoft.CropAndResize(h, rois, which, sizes)", 8),
        ("com.microsoft.GridSample(h, grid)", 8),
    ],
)
def test_forms_of_the_runtime(net, holds, text, out):
    weights = {
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 2]), "value": np.float32([0]), "one": np.array(2, np.int32),
        "ones": np.array([2]), "rois": np.float32([[0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]]),
        "which": np.array([1, 0], np.int32), "sizes": np.array([3, 2], np.int32),
        "grid": np.linspace(-1, 1, 80, dtype=np.float32).reshape(2, 4, 5, 2),
    }  # fmt: skip
    read = {name: value for name, value in weights.items() if re.search(rf"\b{name}\b", text)}
    model = net(
        f"""g (float[2,3,6,7] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1, b1)
            k = {text}
            [c2] y = Conv({'q' if 'q =' in text else 'k'}, w2)
        }}""",
        domains=', "com.microsoft" : 1', w1=(8, 3, 1, 1), b1=(8,), w2=(4, out, 1, 1), **read,
    )  # fmt: skip
    holds(model, {"c1": 8})


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0, 4, 1, 5, 2, 6, 3, 7], {"c1": 2, "c1#2": 4}),  # a channel shuffle of two groups
        ([0, 2, 4, 6, 1, 3, 5, 7], {"c1": 4, "c1#2": 2}),
        ([0, 0, 4, 4, 1, 1, 5, 5, 2, 2, 6, 6, 3, 3, 7, 7], {"c1": 2, "c1#2": 4}),
        ([0, 4, 1, 5, 2, 6, 3, 7] * 2, {"c1": 2, "c1#2": 4}),
        ([0, 4, 0, 4, 1, 5, 1, 5, 2, 6, 2, 6, 3, 7, 3, 7], {"c1": 2, "c1#2": 4}),
        ([0, 2, 4, 6], {"c1": 4}),  # every second
        ([1, 3, 5, 7], {"c1": 4}),
        ([-7, -5, -3, -1], {"c1": 4}),
        ([1, 1, 3, 3, 5, 5, 7, 7], {"c1": 4}),
        ([0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7], {"c1": 4, "c1#2": 4}),
        ([3, 4, 5, 3, 4, 5, 6, 7], {"c1#2": 3, "c1#3": 2}),
    ],
)
def test_positions_on_a_grid(between, holds, places, expected):
    """A Gather that shuffles channels, repeats them, or takes every second."""
    structure = holds(between("[g] r = Gather <axis=1> (h, where)", out=len(places), where=np.array(places)), expected)
    assert [dim.size for dim in structure.records.axes["r"]] == [2, len(places), 6, 7]


@pytest.mark.parametrize("places", [[0, 3, 1, 4, 2, 5, 7, 6], [0, 2, 4, 6, 1, 3, 7, 5], [7, 5, 3, 1, 6, 4, 2, 0]])
def test_positions_on_no_grid_hold_the_channels(between, refuses, places):
    model = between("[g] r = Gather <axis=1> (h, where)", out=len(places), where=np.array(places))
    refuses(model, {"c1": "Gather 'g' picks single positions of this axis"})


def test_positions_on_a_grid_of_three_axes(net, holds):
    """27 channels as 3 x 3 x 3, read in another order of the three."""
    places = np.arange(27).reshape(3, 3, 3).transpose(2, 1, 0).ravel()
    model = net(
        """g (float[2,3,4] x) => (float[a,b,c] y) {
            [c1] h = Conv(x, w1, b1)
            [g] r = Gather <axis=1> (h, where)
            [c2] y = Conv(r, w2)
        }""",
        w1=(27, 3, 1), b1=(27,), w2=(4, 27, 1), where=places,
    )  # fmt: skip
    holds(model, {"c1": 3, "c1#2": 3, "c1#3": 3})
