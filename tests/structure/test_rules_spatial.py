"""Pooling, resampling, moving channels into space and back."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(
    "text",
    [
        "[p] r = MaxPool <kernel_shape=[2,2]> (h)",
        "[p] r = MaxPool <kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1], ceil_mode=1> (h)",
        "[p] r = MaxPool <kernel_shape=[2,2], dilations=[2,3]> (h)",
        '[p] r = AveragePool <kernel_shape=[3,3], auto_pad="SAME_UPPER", strides=[2,2]> (h)',
        "[p] r = AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1> (h)",
        "[p] r = LpPool <kernel_shape=[2,2], p=2> (h)",
        "[p] r = GlobalAveragePool(h)",
        "[p] r = GlobalMaxPool(h)",
        "[p] p = GlobalLpPool <p=2> (h)\n[m] r = Mul(p, h)",
    ],
)
def test_pooling_passes_the_channels(between, holds, text):
    holds(between(text), {"c1": 8})


@pytest.mark.parametrize(
    ("size", "attributes", "pooled"),
    [
        # (6 + 1 + 1 - 3) / 2 + 1 = 3.5 windows: four, all of which start on the map.
        (6, "kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1], ceil_mode=1", 4),
        # Three windows by that count, but the third would start in the padding.
        (3, "kernel_shape=[2,2], strides=[2,2], pads=[1,1,1,1], ceil_mode=1", 2),
        (7, 'kernel_shape=[2,2], strides=[3,3], auto_pad="VALID", ceil_mode=1', 3),
    ],
)
@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool"])
def test_the_size_of_a_pooled_map_is_known_where_it_is_flattened(net, holds, operator, size, attributes, pooled):
    model = net(
        f"""g (float[2,3,{size},{size}] x) => (float[a,b] y) {{
            [c1] h = Conv(x, w1)
            [p] p = {operator} <{attributes}> (h)
            [f] f = Flatten(p)
            [fc] y = Gemm(f, w2)
        }}""",
        w1=(8, 3, 1, 1), w2=(8 * pooled**2, 4), opset=22,
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_the_positions_of_a_max_pool_count_over_the_channels(between, refuses, holds):
    pool = "[p] {}, i = MaxPool <kernel_shape=[2,2]> (h)"
    read = "[c] f = Cast <to=1> (i)\n[s] s = ReduceMax(f)\nr = Add(k, s)"
    refuses(between(f"{pool.format('k')}\n{read}"), {"c1": "returns positions that count over this axis"})
    holds(between(pool.format("r")), {"c1": 8})


@pytest.mark.parametrize(
    ("opset", "text", "weights"),
    [
        (7, '[u] r = Upsample <mode="nearest", scales=[1.0,1.0,2.0,2.0]> (h)', {}),
        (9, '[u] r = Upsample <mode="nearest"> (h, k)', {"k": np.float32([1, 1, 2, 3])}),
        (10, '[u] r = Resize <mode="nearest"> (h, k)', {"k": np.float32([1, 1, 2, 2])}),
        (11, '[u] r = Resize <mode="linear"> (h, roi, k)',
         {"k": np.float32([1, 1, 2, 1.5]), "roi": np.zeros(0, np.float32)}),
        (13, '[u] r = Resize <mode="nearest"> (h, , k)', {"k": np.float32([1, 1, 0.5, 2])}),
        (13, '[u] r = Resize <mode="cubic"> (h, , , k)', {"k": np.array([2, 8, 9, 10])}),
        (18, '[u] r = Resize <axes=[2,3]> (h, , k)', {"k": np.float32([2, 2])}),
        (18, '[u] r = Resize <axes=[-1,-2]> (h, , , k)', {"k": np.array([9, 10])}),
        (18, '[u] r = Resize <axes=[2,3], keep_aspect_ratio_policy="stretch"> (h, , , k)', {"k": np.array([9, 10])}),
    ],
)  # fmt: skip
def test_resampling_passes_the_channels(between, holds, opset, text, weights):
    holds(between(text, opset=opset, **weights), {"c1": 8})


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        ("[u] r = Resize(h, , k)", {"k": np.float32([1, 2, 1, 1])}, "resamples this axis"),
        ("[u] r = Resize(h, , , k)", {"k": np.array([2, 16, 6, 7])}, "resamples this axis"),
        ('[u] r = Resize <axes=[1,2], keep_aspect_ratio_policy="not_larger"> (h, , , k)', {"k": np.array([16, 12])},
         "aspect ratio"),
    ],
)  # fmt: skip
def test_resampling_the_channels_freezes_them(net, refuses, text, weights, reason):
    model = net(
        f"""g (float[2,3,6,7] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1)
            {text}
            [c2] y = Conv(r, w2)
        }}""",
        opset=18, w1=(8, 3, 1, 1), w2=(4, 16, 1, 1), **weights,
    )  # fmt: skip
    refuses(model, {"c1": reason})


def test_resizing_to_the_size_of_another_map(net, holds):
    """The U-Net way: sizes are read from the skip at run time, channels from the map itself."""
    model = net(
        """g (float[N,3,H,W] x) => (float[N,b,c,d] y) {
            [c1] s = Conv(x, w1)
            [p] p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (s)
            [c2] h = Conv(p, w2)
            [s1] hs = Shape(h)
            [s2] nc = Slice(hs, zero, two)
            [s3] ss = Shape(s)
            [s4] hw = Slice(ss, two, four)
            [sz] size = Concat <axis=0> (nc, hw)
            [up] u = Resize <mode="nearest"> (h, , , size)
            [cat] k = Concat <axis=1> (s, u)
            [c3] y = Conv(k, w3)
        }""",
        w1=(8, 3, 1, 1), w2=(6, 8, 1, 1), w3=(4, 14, 1, 1),
        zero=np.array([0]), two=np.array([2]), four=np.array([4]),
    )  # fmt: skip
    holds(model, {"c1": 8, "c2": 6}, {"x": (1, 3, 8, 8)}, run_shapes={"x": (2, 3, 7, 9)})


def test_sizes_scaled_in_floating_point_leave_the_channels_alone(net, holds):
    """Older exporters compute the new height and width as Floor(Cast(size) * scale)."""
    model = net(
        """g (float[N,3,H,W] x) => (float[N,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(h)
            [g2] n2 = Gather <axis=0> (s, two)
            [k2] k2 = Cast <to=1> (n2)
            [m2] m2 = Mul(k2, scale)
            [f2] f2 = Floor(m2)
            [i2] i2 = Cast <to=7> (f2)
            [u2] u2 = Unsqueeze(i2, first)
            [g3] nc = Slice(s, zero, twos)
            [cat] size = Concat <axis=0> (nc, u2, u2)
            [up] r = Resize <mode="nearest"> (h, , , size)
            [c2] y = Conv(r, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1), two=np.array(2), first=np.array([0]), scale=np.float32(2.0),
        zero=np.array([0]), twos=np.array([2]),
    )  # fmt: skip
    holds(model, {"c1": 8}, {"x": (1, 3, 6, 6)}, run_shapes={"x": (2, 3, 5, 5)})


@pytest.mark.parametrize(("mode", "group"), [("DCR", "c1#3"), ("CRD", "c1")])
def test_depth_to_space_leaves_whole_blocks(net, holds, mode, group):
    model = net(
        f"""g (float[2,3,6,7] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1)
            [d] r = DepthToSpace <blocksize=2, mode="{mode}"> (h)
            [c2] y = Conv(r, w2)
        }}""",
        w1=(20, 3, 1, 1), w2=(4, 5, 1, 1),
    )  # fmt: skip
    structure = holds(model, {group: 5})
    assert all("moves this axis into space" in g.reasons[0] for g in structure.frozen[:2])


def test_space_to_depth(between, holds):
    holds(between("[d] r = SpaceToDepth <blocksize=2> (h)", out=32, image="2,3,6,8"), {"c1": 8})


def test_depth_to_space_and_back(net, holds):
    model = net(
        """g (float[2,3,6,7] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [d] d = DepthToSpace <blocksize=2> (h)
            [e] e = Relu(d)
            [s] r = SpaceToDepth <blocksize=2> (e)
            [c2] y = Conv(r, w2)
        }""",
        w1=(20, 3, 1, 1), b1=(20,), w2=(4, 20, 1, 1),
    )  # fmt: skip
    holds(model, {"c1#3": 5})


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[p] p = MaxPool <kernel_shape=[2,1]> (h)", 5),
        ("[p] p = Conv(h, wk)", 4),
        ("[p] p = Resize(h, , k)", 12),
        ("[p] p = Slice(h, one, last, two, two)", 2),
        ("[p] p = Pad(h, pads)", 5),
    ],
)
def test_positions_made_by_an_operator_cannot_be_left_out(net, holds, text, rows):
    """They meet positions that a weight makes, which then have to stay too."""
    weights = {
        "wk": np.full((8, 8, 3, 1), 0.1, np.float32), "k": np.float32([1, 1, 2, 1]), "one": np.array([1]),
        "last": np.array([5]), "two": np.array([2]), "pads": np.array([0, 0, -1, 0, 0, 0, 0, 0]),
    }  # fmt: skip
    model = net(
        f"""g (float[2,3,6,7] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1)
            {text}
            [c2] u = Conv(x, w2)
            [m] m = MatMul(rows, u)
            [s] s = Add(p, m)
            [n] n = MatMul(mix, s)
            [c3] y = Conv(n, w3)
        }}""",
        w1=(8, 3, 1, 1), rows=(rows, 6), w2=(8, 3, 1, 1), mix=(2, rows), w3=(4, 8, 1, 1),
        **{name: value for name, value in weights.items() if name in text.replace("kernel", "")},
    )  # fmt: skip
    structure = holds(model, {"c1": 8, "p": 8} if "Conv" in text else {"c1": 8})
    assert any("'p' makes this axis" in reason for group in structure.frozen for reason in group.reasons)


def test_a_kernel_of_one_leaves_the_positions_prunable(net, holds):
    model = net(
        """g (float[2,3,6,7] x) => (float[a,b,c,d] y) {
            [m] m = MatMul(rows, x)
            [c1] h = Conv(m, w1)
            [p] p = MaxPool <kernel_shape=[1,2]> (h)
            [n] n = MatMul(mix, p)
            [c2] y = Conv(n, w2)
        }""",
        w1=(8, 3, 1, 1), rows=(9, 6), mix=(2, 9), w2=(4, 8, 1, 1),
    )  # fmt: skip
    holds(model, {"m": 9, "c1": 8})


def test_an_axis_of_unknown_size_stays_itself_under_a_padded_kernel(net, holds):
    """The sizes of the input serve to take the flattened map apart again."""
    model = net(
        """g (float[N,3,H,W] x) => (float[a,b,c,d] y) {
            [c1] h = Conv <pads=[1,1,1,1]> (x, w1)
            [p] p = AveragePool <kernel_shape=[3,3], auto_pad="SAME_UPPER"> (h)
            [s] s = Shape(x)
            [n] n = Slice(s, zero, one)
            [hw] hw = Slice(s, two, four)
            [k1] flat = Concat <axis=0> (n, eight, rest)
            [k2] map = Concat <axis=0> (n, eight, hw)
            [r1] f = Reshape(p, flat)
            [e] e = Tanh(f)
            [r2] m = Reshape(e, map)
            [c2] y = Conv(m, w2)
        }""",
        w1=(8, 3, 3, 3), w2=(4, 8, 1, 1), zero=np.array([0]), one=np.array([1]), two=np.array([2]),
        four=np.array([4]), eight=np.array([8]), rest=np.array([-1]),
    )  # fmt: skip
    holds(model, {"c1": 8}, {"x": (1, 3, 5, 6)}, run_shapes={"x": (2, 3, 7, 5)})


UNPOOLED = """[p] p, i = MaxPool <kernel_shape=[2,2], strides=[2,2]> (h)
    [k] k = Conv(p, wk, bk)
    [u] r = MaxUnpool <kernel_shape=[2,2], strides=[2,2]> (k, i{shape})"""


@pytest.mark.parametrize("given", ["", "literal", "computed"])
def test_positions_of_a_pool_that_are_unpooled_count_without_channels(between, holds, given):
    """SegNet: positions count over all axes of the map that the MaxPool read, and so they do in the pruned network."""
    shape = {"": "", "literal": ", shape", "computed": ", t"}[given]
    text = ("t = Shape(h)\n" if given == "computed" else "") + UNPOOLED.format(shape=shape)
    more = {"shape": np.array([2, 8, 6, 8])} if given == "literal" else {}
    model = between(text, image="2,3,6,8", wk=(8, 8, 1, 1), bk=(8,), **more)
    holds(model, {"c1": 8})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (UNPOOLED.format(shape="").replace("2,2]> (k", "2,2], pads=[0,0,0,1]> (k"), "spreads positions over another"),
        (UNPOOLED.format(shape=", shape"), "spreads positions over another shape than the one that MaxPool read"),
        (
            UNPOOLED.format(shape="").replace("r = Max", "q = Max")
            + " j = Cast <to=1> (i) s = ReduceMax(j) r = Add(q, s)",
            "returns positions that count over this",
        ),
        (
            UNPOOLED.format(shape="").replace("(k, i", "(k, j").replace("[k] k", "j = Add(i, zero) [k] k"),
            "reads positions that no MaxPool gives",
        ),
    ],
)
def test_positions_that_mean_something_else_hold_the_channels(between, refuses, text, words):
    model = between(
        text, image="2,3,6,8", wk=(8, 8, 1, 1), bk=(8,), shape=np.array([2, 8, 6, 9]),
        zero=np.array([0]),
    )  # fmt: skip
    refuses(model, {"c1": words})


def test_windows_of_an_axis(net, holds):
    model = net(
        """g (float[2,3,9] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [u] u = com.microsoft.UnfoldTensor <dim=2, size=4, step=2> (h)
            [c2] y = Conv(u, w2)
        }""",
        domains=', "com.microsoft" : 1', w1=(8, 3, 1), b1=(8,), w2=(4, 8, 1, 1),
    )  # fmt: skip
    structure = holds(model, {"c1": 8})
    assert [dim.size for dim in structure.records.axes["u"]] == [2, 8, 3, 4]
