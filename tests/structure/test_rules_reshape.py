"""Reshape: axes merged, split, copied and computed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest


def _ints(**weights):
    return {name: np.array(values, np.int64) for name, values in weights.items()}


@pytest.mark.parametrize(
    "target",
    [[2, -1], [-1, 160], [0, -1], [2, 160], [0, 160], [-1, 32, 5], [2, 8, -1], [0, 0, -1], [0, -1, 20]],
)
def test_a_map_is_flattened(net, holds, target):
    """All spellings of the sizes; the literals that hold channels are rewritten."""
    flat = "[f] f = Identity(r)" if len(target) == 2 else "[f] f = Flatten(r)"
    model = net(
        f"""g (float[2,3,4,5] x) => (float[a,b] y) {{
            [c1] h = Conv(x, w1, b1)
            [r] r = Reshape(h, k)
            {flat}
            [fc] y = Gemm(f, w2)
        }}""",
        w1=(8, 3, 1, 1), b1=(8,), w2=(160, 4), **_ints(k=target),
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_a_zero_copies_the_size_of_another_axis(net, holds):
    """[4, 12] -> [1, 12, 4]: the zero copies 12, but what stands there is 4 x 3 of other entries."""
    model = net(
        """g (float[5,2] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [m2] t = MatMul(w2, h)
            [r] r = Reshape(t, k)
            [m3] y = MatMul(r, w3)
        }""",
        w1=(2, 12), w2=(4, 5), w3=(4, 3), **_ints(k=[1, 0, 4]),
    )  # fmt: skip
    structure = holds(model, {"m1#2": 4})
    assert [group.size for group in structure.groups] == [3, 4, 4, 3]


def test_a_zero_with_allowzero_is_no_copy(between, holds):
    text = "[r] q = Reshape <allowzero=1> (h, k)\n[s] r = Reshape(q, j)"
    holds(between(text, **_ints(k=[2, 8, 42], j=[0, 0, 6, 7])), {"c1": 8})


@pytest.mark.parametrize("groups", [2, 4])
def test_a_channel_shuffle(net, holds, groups):
    model = net(
        f"""g (float[2,3,5,5] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1)
            [g1] u = Conv <group={groups}> (h, w2, b2)
            [r1] p = Reshape(u, split)
            [t] q = Transpose <perm=[0,2,1,3,4]> (p)
            [r2] s = Reshape(q, merge)
            [g2] v = Conv <group={groups}> (s, w3)
            [c2] y = Conv(v, w4)
        }}""",
        w1=(8, 3, 1, 1), w2=(16, 8 // groups, 1, 1), b2=(16,), w3=(16, 16 // groups, 1, 1), w4=(4, 16, 1, 1),
        **_ints(split=[2, groups, 16 // groups, 5, 5], merge=[2, -1, 5, 5]),
    )  # fmt: skip
    rest = 8 // groups
    names = {"c1": groups, "c1#2": rest, "g1": groups, "g1#2": 16 // groups // groups, "g2": 16 // groups}
    holds(model, {name: size for name, size in names.items() if size > 1})


def test_a_shuffle_by_slices_and_a_stack(net, holds):
    """ShuffleNet v2: half the channels pass, the other half is computed; both are interleaved."""
    model = net(
        """g (float[N,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] a, b = Split <axis=1> (h, halves)
            [c2] c = Conv(b, w2)
            [cat] k = Concat <axis=1> (a, c)
            [r1] p = Reshape(k, split)
            [t] q = Transpose <perm=[0,2,1,3,4]> (p)
            [r2] m = Reshape(q, merge)
            [c3] y = Conv(m, w3)
        }""",
        w1=(12, 3, 1, 1), w2=(6, 6, 1, 1), w3=(4, 12, 1, 1),
        **_ints(halves=[6, 6], split=[-1, 2, 6, 5, 5], merge=[-1, 12, 5, 5]),
    )  # fmt: skip
    # The two halves lie side by side in pairs, so they go in pairs.
    structure = holds(model, {"c1": 6, "c1#2": 6})
    assert [use.node.name for use in structure.prunable[0].producers] == ["c1", "c2"]


def test_a_reshape_across_units_freezes_them(between, refuses):
    """8 x 6 x 7 -> 21 x 4 x 4: no size of one ends where one of the other does."""
    text = "[r] q = Reshape(h, k)\n[e] e = Relu(q)\n[s] r = Reshape(e, j)"
    refuses(
        between(text, **_ints(k=[2, 21, 4, 4], j=[2, 8, 6, 7])),
        {"c1": "Reshape 'r' regroups this axis across its units"},
    )


def test_a_reshape_that_cuts_units_into_a_grid(net, holds):
    """12 -> 3 x 4: rows and columns of units are groups."""
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [b] s = Add(h, b1)
            [r] r = Reshape(s, grid)
            [t] t = Transpose <perm=[0,2,1]> (r)
            [f] f = Flatten(t)
            [m2] y = MatMul(f, w2)
        }""",
        w1=(6, 12), b1=(12,), w2=(12, 3), **_ints(grid=[2, 3, 4]),
    )  # fmt: skip
    holds(model, {"m1": 3, "m1#2": 4})


def test_one_tensor_reshaped_in_two_ways(net, holds):
    """12 as 3 x 4 and as 2 x 6: the finest grid that both have in common."""
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [r] r = Reshape(h, one)
            [e] e = Tanh(r)
            [f] f = Reshape(e, flat)
            [s] s = Reshape(h, two)
            [g] g = Sin(s)
            [i] i = Reshape(g, flat)
            [a] a = Add(f, i)
            [m2] y = MatMul(a, w2)
        }""",
        w1=(6, 12), w2=(12, 3), **_ints(one=[2, 2, 6], two=[2, 4, 3], flat=[2, 12]),
    )  # fmt: skip
    holds(model, {"m1": 2, "m1#2": 2, "m1#3": 3})


def test_one_tensor_reshaped_in_two_ways_that_do_not_nest(net, refuses):
    model = net(
        """g (float[2,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [r] r = Reshape(h, one)
            [s] s = Reshape(h, two)
            [t] t = Transpose <perm=[0,2,1]> (s)
            [m] m = Reshape(t, one)
            [z] z = Add(m, r)
            [m2] y = MatMul(z, w2)
        }""",
        w1=(6, 12), w2=(4, 3), **_ints(one=[2, 3, 4], two=[2, 4, 3]),
    )  # fmt: skip
    refuses(model, {"m1": "regroups this axis across its units"})


@pytest.mark.parametrize("opset", [9, 13])
def test_a_flatten_computed_at_run_time(net, holds, opset):
    """view(x.size(0), -1): Shape, Gather, Unsqueeze, Concat, Reshape."""
    squeeze = "Unsqueeze <axes=[0]> (n)" if opset < 13 else "Unsqueeze(n, first)"
    model = net(
        f"""g (float[N,3,4,5] x) => (float[a,b] y) {{
            [c1] h = Conv(x, w1)
            [s] s = Shape(h)
            [g] n = Gather <axis=0> (s, zero)
            [u] u = {squeeze}
            [cat] k = Concat <axis=0> (u, rest)
            [r] r = Reshape(h, k)
            [fc] y = Gemm(r, w2, b2)
        }}""",
        opset=opset, w1=(8, 3, 1, 1), w2=(160, 4), b2=(4,), rest=np.array([-1]), zero=np.array(0),
        **({} if opset < 13 else {"first": np.array([0])}),
    )  # fmt: skip
    holds(model, {"c1": 8}, {"x": (2, 3, 4, 5)}, run_shapes={"x": (3, 3, 4, 5)})


def test_sizes_that_are_all_computed(net, holds):
    """view(n, c * h * w), multiplied at run time: nothing has to be rewritten."""
    model = net(
        """g (float[N,3,H,W] x) => (float[a,b,c] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(h)
            [n] n = Gather <axis=0> (s, i0)
            [c] c = Gather <axis=0> (s, i1)
            [v] v = Gather <axis=0> (s, i2)
            [w] w = Gather <axis=0> (s, i3)
            [hw] hw = Mul(v, w)
            [k] k = Concat <axis=0> (n, c, hw)
            [r] r = Reshape(h, k)
            [t] t = Transpose <perm=[0,2,1]> (r)
            [m] y = MatMul(t, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(8, 4), **_ints(i0=[0], i1=[1], i2=[2], i3=[3]),
    )  # fmt: skip
    holds(model, {"c1": 8}, {"x": (2, 3, 4, 5)}, run_shapes={"x": (3, 3, 6, 2)})


def test_heads_by_a_width_computed_from_the_channels(net, holds):
    """head_dim = width // heads at run time; the literal 3 (heads) is rewritten, the quotient patched."""
    model = net(
        """g (float[N,5,6] x) => (float[a,b,c] y) {
            [v] v = MatMul(x, wv)
            [s] s = Shape(v)
            [w] w = Gather <axis=0> (s, i2)
            [nt] nt = Slice(s, i0, i2)
            [d] d = Div(w, heads)
            [k] k = Concat <axis=0> (nt, heads, d)
            [r] r = Reshape(v, k)
            [t] t = Transpose <perm=[0,2,1,3]> (r)
            [e] e = Softmax <axis=2> (t)
            [u] u = Transpose <perm=[0,2,1,3]> (e)
            [f] f = Reshape(u, flat)
            [m] y = MatMul(f, wo)
        }""",
        wv=(6, 12), wo=(12, 4), **_ints(i0=[0], i2=[2], heads=[3], flat=[0, 0, -1]),
    )  # fmt: skip
    holds(model, {"v": 3, "v#2": 4}, run_shapes={"x": (3, 5, 6)})


def test_channels_in_a_size_known_at_run_time_only(net, holds):
    """batch * channels as one computed number is rewritten as a multiple of itself."""
    model = net(
        """g (float[N,3,4,5] x) => (float[a,b,c] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(x)
            [n] n = Gather <axis=0> (s, i0)
            [m] m = Mul(n, eight)
            [k] k = Concat <axis=0> (m, hw)
            [r] r = Reshape(h, k)
            [q] q = Relu(r)
            [j] j = Reshape(q, back)
            [c2] v = Conv(j, w2)
            [e] y = ReduceSum <keepdims=0> (v, i0)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1), **_ints(i0=[0], eight=[8], hw=[4, -1], back=[-1, 8, 4, 5]),
    )  # fmt: skip
    holds(model, {"c1": 8}, {"x": (2, 3, 4, 5)}, run_shapes={"x": (3, 3, 4, 5)})


def _unfolded(net, attributes=""):
    """[N*8, 20] -> [(N*8) / 8, 8, 20], where the first size is rounded once channels are gone."""
    return net(
        f"""g (float[N,3,4,5] x) => (float[a,b,c] y) {{
            [c1] h = Conv(x, w1)
            [r] r = Reshape(h, fold)
            [s] s = Shape(r)
            [n] n = Gather <axis=0> (s, i0)
            [d] d = Div(n, eight)
            [k] k = Concat <axis=0> (d, rest)
            [j] j = Reshape {attributes} (r, k)
            [t] t = Transpose <perm=[0,2,1]> (j)
            [m2] y = MatMul(t, w2)
        }}""",
        w1=(8, 3, 1, 1), w2=(8, 4), **_ints(i0=[0], eight=[8], fold=[-1, 20], rest=[8, 20]),
    )  # fmt: skip


def test_the_one_size_that_cannot_be_rewritten_is_left_to_the_reshape(net, holds):
    holds(_unfolded(net), {"c1": 8}, {"x": (2, 3, 4, 5)}, run_shapes={"x": (5, 3, 4, 5)})


def test_a_size_that_is_rounded_freezes_channels(net, refuses):
    refuses(_unfolded(net, "<allowzero=1>"), {"c1": "takes a size that cannot be rewritten"}, {"x": (2, 3, 4, 5)})


@pytest.mark.parametrize("batch", ["2", "N"])
@pytest.mark.parametrize("count", ["Gather <axis=0> (s, one)", "Size(h)"], ids=["width", "entries"])
def test_an_attention_scale_stays_what_it_was(net, holds, batch, count):
    """A number that is computed from a size is that of the dense network, as it is where units are masked."""
    model = net(
        f"""g (float[{batch},6] x) => (float[a,b] y) {{
            [m1] h = MatMul(x, w1)
            [s] s = Shape(h)
            [g] g = {count}
            [c] c = Cast <to=1> (g)
            [q] q = Sqrt(c)
            [d] d = Div(h, q)
            [m2] y = MatMul(d, w2)
        }}""",
        w1=(6, 8), w2=(8, 3), one=np.array(1),
    )  # fmt: skip
    holds(model, {"m1": 8}, {"x": (2, 6)}, run_shapes={"x": (2 if batch == "2" else 3, 6)})


def test_a_range_over_the_channels_freezes_them(net, refuses):
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [s] s = Shape(h)
            [g] g = Gather <axis=0> (s, one)
            [r] r = Range(zero, g, one)
            [c] c = Cast <to=1> (r)
            [a] d = Add(h, c)
            [m2] y = MatMul(d, w2)
        }""",
        w1=(6, 8), w2=(8, 3), one=np.array(1), zero=np.array(0),
    )  # fmt: skip
    refuses(model, {"m1": "Range"})


def test_a_literal_batch_over_a_batch_known_at_run_time(net, holds):
    """Reshape to [1, 8, -1]: the exporter fixed the batch; positions of all samples follow each other."""
    model = net(
        """g (float[N,3,4,5] x) => (float[a,b,c] y) {
            [c1] h = Conv(x, w1)
            [r] r = Reshape(h, k)
            [t] t = Transpose <perm=[0,2,1]> (r)
            [m] y = MatMul(t, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(8, 4), **_ints(k=[1, 8, -1]),
    )  # fmt: skip
    with pytest.raises(AssertionError, match="regroups this axis across its units"):
        holds(model, {"c1": 8}, {"x": (1, 3, 4, 5)})


def test_a_target_of_run_time_sizes_that_no_axis_has_is_refused_at_once(net, refuses):
    model = net(
        """g (float[N,3,4,4] x, float[N,K] z) => (float[a,b] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(z)
            [r] r = Reshape(h, s)
            [add] q = Add(r, z)
            [m] y = MatMul(q, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(128, 5),
    )  # fmt: skip
    shapes = {"x": (2, 3, 4, 4), "z": (2, 128)}
    refuses(model, {"c1": "known at run time only"}, shapes)


def test_an_expand_that_keeps_sizes_marked_by_minus_one_is_seen_through(net, holds):
    """TorchScript writes expand(-1, ...) as Where(sizes == -1, ones, sizes), with the -1 made from the sizes' shape."""
    model = net(
        """g (float[N,6] x) => (float[a,b] y) {
            [up] h = MatMul(x, w1)
            [s] s = Shape(h)
            [ss] ss = Shape(s)
            [ones] ones = ConstantOfShape <value = int64[1] {1}> (ss)
            [m] m = Mul(ones, minus)
            [eq] e = Equal(s, m)
            [w] t = Where(e, ones, s)
            [ex] r = Expand(h, t)
            [down] y = MatMul(r, w2)
        }""",
        w1=(6, 8), w2=(8, 5), minus=np.array(-1),
    )  # fmt: skip
    holds(model, {"up": 8}, {"x": (3, 6)}, run_shapes={"x": (5, 6)})


def _heads_of_a_sum(net, declared):
    """Heads of a sum of x and z, where the sizes of the Reshape come from v."""
    return net(
        f"""g (float[L,R,6] x, float[M,T,6] z, float[N,S] v) => (float[N,S,4] y) <float[{declared},8] h> {{
            [m1] a = MatMul(x, w1)
            [m0] b = MatMul(z, w0)
            [a] h = Add(b, a)
            lead = Shape(v)
            target = Concat <axis=0> (lead, tail)
            [r] q = Reshape(h, target)
            [u] u = Mul(q, scale)
            back = Concat <axis=0> (lead, all)
            [s] s = Reshape(u, back)
            [m2] y = MatMul(s, w2)
        }}""",
        w0=(6, 8), w1=(6, 8), w2=(8, 4), scale=(2, 1), **_ints(tail=[-1, 4], all=[8]),
    )  # fmt: skip


def test_sizes_that_are_declared_equal_are_one_size(net, holds):
    """The model says that the sum has the sizes of v: they are what the target asks for."""
    shapes = {"x": (3, 5, 6), "z": (3, 5, 6), "v": (3, 5)}
    model = _heads_of_a_sum(net, "N,S")
    holds(model, {"m1": 2, "m1#2": 4}, shapes)
    holds(model, {"m1": 2, "m1#2": 4}, shapes, run_shapes={"x": (2, 7, 6), "z": (1, 7, 6), "v": (2, 7)})


@pytest.mark.parametrize("declared", ["K,S", "?,S"])
def test_sizes_that_are_not_declared_equal_stay_apart(net, refuses, declared):
    model = _heads_of_a_sum(net, "K,S").SerializeToString().replace(b"K", declared[0].encode())
    shapes = {"x": (3, 5, 6), "z": (3, 5, 6), "v": (3, 5)}
    refuses(onnx.load_from_string(model), {"m1": "Reshape 'r' regroups"}, shapes, allowed=["m1#2"])


@pytest.mark.parametrize("tail", [[-1], [8]], ids=["rest", "literal"])
@pytest.mark.parametrize("heads", [[-1, 4], [2, 4]], ids=["rest", "literal"])
def test_sizes_that_were_broadcast(net, holds, heads, tail):
    """The sum has the batch of x or of z; where the sizes of x do, the weights behind say that it is that of x."""
    model = net(
        """g (float[N,S,6] x, float[M,T,6] z) => (float[N,S,4] y) {
            [m1] a = MatMul(x, w1)
            [m0] b = MatMul(z, w0)
            shape = Shape(x)
            lead = Slice(shape, zero, two)
            target = Concat <axis=0> (lead, heads)
            [r] q = Reshape(a, target)
            zshape = Shape(z)
            zlead = Slice(zshape, zero, two)
            ztarget = Concat <axis=0> (zlead, heads)
            [t] p = Reshape(b, ztarget)
            [a] h = Add(p, q)
            back = Concat <axis=0> (lead, tail)
            [s] s = Reshape(h, back)
            [m2] y = MatMul(s, w2)
        }""",
        w0=(6, 8), w1=(6, 8), w2=(8, 4), **_ints(zero=[0], two=[2], heads=heads, tail=tail),
    )  # fmt: skip
    shapes = {"x": (3, 5, 6), "z": (3, 5, 6)}
    holds(model, {"m1": 2, "m1#2": 4}, shapes)
    holds(model, {"m1": 2, "m1#2": 4}, shapes, run_shapes={"x": (2, 7, 6), "z": (1, 7, 6)})


def test_sizes_are_not_broadcast_from_what_they_are_smaller_than(net, refuses):
    """The product of x and z may have more rows than z: then the heads of several rows come together in one."""
    model = net(
        """g (float[N,S,6] x, float[N,4,S] z, float[K,2] v) => (float[a,b,c] y) {
            [m1] a = MatMul(x, w1)
            [m] h = MatMul(z, a)
            lead = Shape(v)
            target = Concat <axis=0> (lead, tail)
            [r] q = Reshape(h, target)
            [m2] y = MatMul(q, w2)
        }""",
        w1=(6, 8), w2=(16, 4), **_ints(tail=[-1]),
    )  # fmt: skip
    refuses(model, {"m1": "Reshape 'r' regroups"}, {"x": (3, 5, 6), "z": (3, 4, 5), "v": (3, 2)})


def _folded_heads(net):
    """Scores of [N, 4, S, S] and a mask, folded to [N*4, S, -1] by the sizes of x, times values of [N*4, S, 3]."""
    return net(
        """g (float[N,S,6] x, float[M,1,T,T] mask) => (float[a,b,c] y) {
            shape = Shape(x)
            lead = Slice(shape, zero, two)
            n = Gather <axis=0> (shape, zero)
            heads = Concat <axis=0> (lead, tail)
            folds = Mul(n, four)
            s = Slice(shape, one, two)
            [mq] q = MatMul(x, wq)
            [rq] q4 = Reshape(q, heads)
            [tq] qh = Transpose <perm=[0,2,1,3]> (q4)
            [tk] kh = Transpose <perm=[0,2,3,1]> (q4)
            [qk] scores = MatMul(qh, kh)
            [add] masked = Add(scores, mask)
            wide = Concat <axis=0> (folds, s, rest)
            [fold] p = Reshape(masked, wide)
            [mv] v = MatMul(x, wv)
            [rv] v4 = Reshape(v, heads)
            [tv] vh = Transpose <perm=[0,2,1,3]> (v4)
            narrow = Concat <axis=0> (folds, s, rest)
            [fv] vf = Reshape(vh, narrow)
            [pv] o = MatMul(p, vf)
            count = Shape(o)
            first = Slice(count, zero, one)
            back = Div(first, four)
            unfold = Concat <axis=0> (back, four, s, depth)
            [ro] o4 = Reshape(o, unfold)
            [to] oh = Transpose <perm=[0,2,1,3]> (o4)
            merge = Concat <axis=0> (lead, rest)
            [rm] om = Reshape(oh, merge)
            [mo] y = MatMul(om, wo)
        }""",
        wq=(6, 8), wv=(6, 12), wo=(12, 5),
        **_ints(zero=[0], one=[1], two=[2], four=[4], tail=[4, -1], rest=[-1], depth=[3]),
    )  # fmt: skip


def test_heads_folded_into_the_batch_behind_a_mask(net, holds):
    """That the mask spreads nothing shows only where the scores meet the values."""
    shapes = {"x": (2, 5, 6), "mask": (2, 1, 5, 5)}
    run = {"x": (3, 7, 6), "mask": (1, 1, 7, 7)}
    structure = holds(_folded_heads(net), {"mq": 4, "mq#2": 2, "mv": 3}, shapes, run_shapes=run)
    assert [group.size for group in structure.groups] == [4, 2, 3, 5]


def test_a_fold_that_may_bring_rows_together_freezes_the_heads(net, refuses):
    """Nothing says that the mask does not spread the batch, for nothing meets the folded scores."""
    model = net(
        """g (float[N,S,6] x, float[M,1,1,T] mask) => (float[a,b,c] y) {
            [mq] q = MatMul(x, wq)
            shape = Shape(x)
            lead = Slice(shape, zero, two)
            heads = Concat <axis=0> (lead, tail)
            [rq] q4 = Reshape(q, heads)
            [tq] qh = Transpose <perm=[0,2,1,3]> (q4)
            [add] masked = Add(qh, mask)
            n = Slice(shape, zero, one)
            fold = Mul(n, four)
            wide = Concat <axis=0> (fold, rest, depth)
            [fold] p = Reshape(masked, wide)
            [mo] y = MatMul(p, wo)
        }""",
        wq=(6, 8), wo=(2, 5), **_ints(zero=[0], one=[1], two=[2], four=[4], tail=[4, 2], rest=[-1], depth=[2]),
    )  # fmt: skip
    shapes = {"x": (2, 5, 6), "mask": (2, 1, 1, 2)}
    refuses(model, {"mq": "Reshape 'fold' regroups this axis across its units"}, shapes)


def test_sizes_computed_in_ways_unknown_here_are_those_declared(net, holds):
    """(S - 3) // 2 + 1 is the size of the Conv's axis, as the model says; only the name of it is compared."""
    model = net(
        """g (float[N,6,S] x) => (float[a,b,c] y) <float[N,8,"(S-3)//2+1"] h, float[N,"(S-3)//2+1",4,2] r> {
            [c1] h = Conv <strides=[2]> (x, w1)
            [t] t = Transpose <perm=[0,2,1]> (h)
            shape = Shape(x)
            n = Slice(shape, zero, one)
            s = Slice(shape, two, three)
            s1 = Sub(s, three)
            s2 = Div(s1, two)
            s3 = Add(s2, one)
            target = Concat <axis=0> (n, s3, tail)
            [r] r = Reshape(t, target)
            [u] u = Mul(r, scale)
            back = Concat <axis=0> (n, s3, all)
            [b] b = Reshape(u, back)
            [m2] y = MatMul(b, w2)
        }""",
        w1=(8, 6, 3), w2=(8, 4), scale=(4, 1),
        **_ints(zero=[0], one=[1], two=[2], three=[3], tail=[-1, 2], all=[8]),
    )  # fmt: skip
    holds(model, {"c1": 4, "c1#2": 2}, {"x": (2, 6, 11)}, run_shapes={"x": (3, 6, 21)})


def test_the_product_of_sizes_is_a_size(net, holds):
    """ReduceProd of a slice of a shape; the greater of two equal sizes is either of them."""
    model = net(
        """g (float[N,S,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            shape = Shape(h)
            lead = Slice(shape, zero, two)
            rows = ReduceProd <axes=[0]> (lead)
            width = Slice(shape, two, three)
            wide = Max(width, width)
            flat = Concat <axis=0> (rows, wide)
            [r] r = Reshape(h, flat)
            [u] u = Relu(r)
            [b] b = Reshape(u, shape)
            [m2] y = MatMul(b, w2)
        }""",
        w1=(6, 8), w2=(8, 4), **_ints(zero=[0], two=[2], three=[3]),
    )  # fmt: skip
    holds(model, {"m1": 8}, {"x": (2, 5, 6)}, run_shapes={"x": (3, 7, 6)})


def test_overlapping_frames_of_one_signal_are_cut_without_end(net, holds):
    """Windows that overlap are two slices of one axis, and a cut falls in each of hundreds of frames."""
    model = net(
        """g (float[N,4008] x) => (float[N,500,6] y) {
            [s1] a = Slice(x, zero, until, one)
            [s2] b = Slice(x, lap, end, one)
            [r1] p = Reshape(a, k)
            [r2] q = Reshape(b, k)
            [cat] c = Concat<axis = 2>(p, q)
            [m1] h = MatMul(c, w1)
            [r] r = Relu(h)
            [m2] y = MatMul(r, w2)
        }""",
        w1=(16, 12), w2=(12, 6),
        **_ints(zero=[0], until=[4000], one=[1], lap=[8], end=[4008], k=[-1, 500, 8]),
    )  # fmt: skip
    holds(model, {"m1": 12})
