"""The shortcut that a layer is added to, found behind constants and changes of layout, and undone again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import open_session, run
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import Linear, find_linears
from onnx_subprune.recovery.exact.shortcuts import Shortcut

RNG = np.random.default_rng(2)
BLOCK = """g (float[2,3,4] x) => (float[a,b,c] y) {{
    [m] h = MatMul(x, w)
    {text}
}}"""


def _shortcut(model: onnx.ModelProto, name: str = "m") -> tuple[Linear, Shortcut | None]:
    linear = next(linear for linear in find_linears(model)[0] if linear.name == name)
    return linear, Surroundings(model, model).shortcut(linear)


def _values(model: onnx.ModelProto, *names: str) -> dict[str, np.ndarray]:
    """Tensors inside a network, run on noise."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}
    feeds = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    return feeds | run(open_session(copy, threads=1), feeds, list(names))


@pytest.mark.parametrize("order", ["h, x", "x, h"])
def test_a_sum_right_behind_the_layer(net, order) -> None:
    _, shortcut = _shortcut(net(BLOCK.format(text=f"[a] y = Add({order})"), w=(4, 4)))
    assert shortcut is not None
    assert (shortcut.name, shortcut.total, shortcut.layout, shortcut.scale) == ("x", "y", (), None)
    assert not shortcut.shifted


def test_constants_on_the_way(net) -> None:
    """LayerScale: a factor for each channel; a second bias is part of the sum."""
    text = "[s] k = Mul(h, gamma)\n[i] j = Identity(k)\n[b] l = Add(j, beta)\n[a] y = Add(l, x)"
    gamma = np.float32([1, 2, 3, 4])
    _, shortcut = _shortcut(net(BLOCK.format(text=text), w=(4, 4), gamma=gamma, beta=(4,)))
    assert shortcut is not None
    np.testing.assert_array_equal(shortcut.scale, gamma)
    assert shortcut.shifted


def test_one_factor_for_all_channels_is_one_for_each(net) -> None:
    _, shortcut = _shortcut(net(BLOCK.format(text="[s] k = Mul(h, g)\n[a] y = Add(k, x)"), w=(4, 4), g=np.float32(0.5)))
    assert shortcut is not None
    np.testing.assert_array_equal(shortcut.scale, [0.5] * 4)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        # Nothing is added.
        ("[r] y = Relu(h)", {}),
        # A constant alone.
        ("[a] y = Add(h, beta)", {"beta": (3, 4)}),
        # Something else happens on the way.
        ("[r] k = Relu(h)\n[a] y = Add(k, x)", {}),
        ("[k] k = MatMul(h, w)\n[a] y = Add(k, x)", {}),
        # A factor that varies by position.
        ("[s] k = Mul(h, g)\n[a] y = Add(k, x)", {"g": (3, 4)}),
        ("[s] k = Mul(h, g)\n[a] y = Add(k, x)", {"g": (3, 1)}),
        # A factor that is not right behind the layer.
        ("[t] t = Transpose <perm=[0,2,1]> (h)\n[s] k = Mul(t, g)\n[u] u = Transpose <perm=[0,2,1]> (k)\n"
         "[a] y = Add(u, x)", {"g": np.float32(2)}),
        # It is read by something else as well.
        ("[a] k = Add(h, x)\n[b] y = Add(k, h)", {}),
    ],
)  # fmt: skip
def test_no_shortcut(net, text, weights) -> None:
    assert _shortcut(net(BLOCK.format(text=text), w=(4, 4), **weights))[1] is None


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("[t] t = Transpose <perm=[0,2,1]> (h)\n[a] k = Add(t, z)\n[q] y = Identity(k)", {}),
        ("[t] t = Transpose (h)\n[p] p = Transpose <perm=[1,0,2]> (t)\n[a] k = Add(p, z)\n[q] y = Identity(k)", {}),
        ("[t] t = Transpose <perm=[1,0,2]> (h)\n[s] s = Reshape(t, flat)\n[a] k = Add(s, z)\n[q] y = Reshape(k, back)",
         {"flat": np.array([-1, 4]), "back": np.array([2, 3, 4])}),
        ("[s] s = Unsqueeze(h, one)\n[t] t = Transpose <perm=[3,1,0,2]> (s)\n[a] k = Add(t, z)\n"
         "[q] y = Squeeze(k, one)", {"one": np.array([1])}),
    ],
)  # fmt: skip
def test_a_layout_is_undone(net, text, weights) -> None:
    """What is added, laid out as the layer's output, plus that output is the sum laid out so."""
    shapes = {"t, z": "2,4,3", "p, z": "3,4,2", "s, z": "6,4"}
    shape = "4,1,2,3" if "Unsqueeze" in text else next(size for place, size in shapes.items() if place in text)
    graph = BLOCK.format(text=text).replace("float[2,3,4] x)", f"float[2,3,4] x, float[{shape}] z)")
    model = net(graph, w=(4, 4), **weights)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    _, shortcut = _shortcut(model)
    assert shortcut is not None
    values = _values(model, "h", "k")
    beside = shortcut.undone(values["z"], values["h"].shape)
    total = shortcut.undone(values["k"], values["h"].shape)
    np.testing.assert_allclose(values["h"] + beside, total, rtol=1e-5, atol=1e-6)


def test_what_is_broadcast_is_no_shortcut(net) -> None:
    _, shortcut = _shortcut(net(BLOCK.format(text="[z] z = Relu(x)\n[a] y = Add(h, z)"), w=(4, 4)))
    assert shortcut is not None
    assert shortcut.undone(np.zeros((1, 3, 4)), (2, 3, 4)) is None
    assert shortcut.undone(np.zeros((3, 2, 4)), (2, 3, 4)) is None, "as many entries, of another shape"
    assert shortcut.undone(np.zeros((2, 3, 4)), (2, 3, 4)) is not None


def test_behind_two_reshapes_the_shape_between_is_not_known(net) -> None:
    text = "[s] s = Reshape(h, flat)\n[t] t = Transpose (s)\n[u] u = Reshape(t, back)\n[a] y = Add(u, x)"
    weights = {"flat": np.array([6, 4]), "back": np.array([2, 3, 4])}
    _, shortcut = _shortcut(net(BLOCK.format(text=text), w=(4, 4), **weights))
    assert shortcut is not None
    assert [node.op_type for node in shortcut.layout] == ["Reshape", "Transpose", "Reshape"]
    assert shortcut.undone(np.zeros((2, 3, 4)), (2, 3, 4)) is None


def test_a_stack_has_no_shortcut(net) -> None:
    model = net(BLOCK.format(text="[a] y = Add(h, x)"), w=(2, 4, 4))
    assert _shortcut(model)[1] is None


CHANNELS = np.arange(1, 5, dtype=np.float32)


@pytest.mark.parametrize(
    ("factor", "scale"),
    [
        (CHANNELS.reshape(4, 1, 1), CHANNELS),
        (CHANNELS.reshape(1, 4, 1, 1), CHANNELS),
        (np.float32([[[3]]]), np.full(4, 3)),
        (np.ones((5, 5), np.float32), None),
        (np.ones((4, 5, 5), np.float32), None),
    ],
)
def test_the_scale_of_a_convolution_is_a_value_for_each_channel(net, factor, scale) -> None:
    text = """g (float[2,4,5,5] x) => (float[a,b,c,d] y) {
        [m] h = Conv (x, w)
        [s] k = Mul(h, factor)
        [a] y = Add(k, x)
    }"""
    _, shortcut = _shortcut(net(text, w=(4, 4, 1, 1), factor=factor))
    if scale is None:
        assert shortcut is None
    else:
        assert shortcut is not None
        np.testing.assert_array_equal(shortcut.scale, scale)
