"""What layers of a pruned network are fitted to: values of the dense one, cut down to the units that stay."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_subprune.model import array_of, open_session, run
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import Linear, find_linears
from onnx_subprune.recovery.exact.shortcuts import Shortcut
from onnx_subprune.recovery.exact.targets import Targets

RNG = np.random.default_rng(4)
TWO = """g (float[N,4] x) => (float[a,b] y) {
    [m1] h = MatMul(x, w1)
    [m2] y = MatMul(h, w2)
}"""


def _whole(name: str, value: np.ndarray) -> np.ndarray:
    return value


def _targets(dense: onnx.ModelProto, pruned: onnx.ModelProto, restrict=_whole) -> tuple[Targets, dict[str, Linear]]:
    linears = {linear.name: linear for linear in find_linears(pruned)[0]}
    return Targets(dense, restrict, Surroundings(pruned, dense)), linears


def test_the_target_is_the_dense_output_of_the_units_that_stay(net) -> None:
    dense, pruned = net(TWO, w1=(4, 6), w2=(6, 3)), net(TWO, w1=(4, 2), w2=(2, 3))
    asked: list[str] = []

    def restrict(name: str, value: np.ndarray) -> np.ndarray:
        asked.append(name)
        return value[:, [1, 4]] if name == "h" else value

    targets, linears = _targets(dense, pruned, restrict)
    values = {"h": RNG.standard_normal((5, 6)), "y": RNG.standard_normal((5, 3))}
    assert targets.refusal(linears["m1"]) is None
    assert targets.tensor(linears["m1"]) == "h"
    np.testing.assert_array_equal(targets.value(values, linears["m1"]), values["h"][:, [1, 4]])
    np.testing.assert_array_equal(targets.value(values, linears["m2"]), values["y"])
    assert asked == ["h", "y"]


def test_a_tensor_that_the_dense_network_lacks_is_told(net) -> None:
    dense = net("g (float[N,4] x) => (float[a,b] y) { [n] y = Neg(x) }")
    targets, linears = _targets(dense, net(TWO, w1=(4, 4), w2=(4, 4)))
    assert targets.refusal(linears["m1"]) == "the dense network has no such tensor"
    assert targets.refusal(linears["m2"]) is None


GATES = """g (float[5,N,4] x) => (float[a,b,c,d] y) {
    [m] y = RNN <hidden_size=3> (x, w, r, b)
}"""


def test_gates_out_of_sight_are_computed_beside_the_network(net) -> None:
    model = net(GATES, w=(1, 3, 4), r=(1, 3, 3), b=(1, 6))
    stored = {tensor.name: array_of(tensor) for tensor in model.graph.initializer}
    targets, linears = _targets(model, model)
    x = RNG.standard_normal((5, 2, 4)).astype(np.float32)
    expected = x @ stored["w"][0].T + stored["b"][0, :3]
    value = targets.value({"x": x}, linears["m"])
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    # The tensor that it is made of is what the layer reads.
    assert targets.tensor(linears["m"]) == "x"
    half = targets.value({"x": x.astype(np.float16)}, linears["m"])
    assert half.dtype == np.float32, "half precision is multiplied in single"


def test_gates_are_cut_down_by_the_name_of_their_projection(net) -> None:
    dense, pruned = (net(GATES, w=(1, h, 4), r=(1, h, h), b=(1, 2 * h)) for h in (3, 3))
    targets, linears = _targets(dense, pruned, lambda name, value: value[..., :2] if "projection" in name else value)
    assert targets.value({"x": np.ones((5, 2, 4), np.float32)}, linears["m"]).shape == (5, 2, 2)


def test_a_projection_that_the_dense_network_lacks_is_told(net) -> None:
    pruned = net(GATES, w=(1, 3, 4), r=(1, 3, 3), b=(1, 6))
    targets, linears = _targets(net(GATES.replace("[m]", "[k]"), w=(1, 3, 4), r=(1, 3, 3), b=(1, 6)), pruned)
    assert targets.refusal(linears["m"]) == "the dense network has no such layer"


DENSE = """g (float[N,4] x) => (float[a,b] y) {
    [m1] s = MatMul(x, w)
    [a0] t = Add(s, x)
    [m2] u = MatMul(x, v)
    [a1] z = Add(t, u)
    [n] y = Tanh(z)
}"""
PRUNED = """g (float[N,4] x) => (float[a,b] y) {
    [m1] s = MatMul(x, w)
    [a0] t = Add(s, x)
    [n] y = Tanh(t)
}"""


def test_a_shortcut_holds_the_branches_that_went_behind_it(net) -> None:
    """The pruned sum stands for the dense one behind the branch, so what the branch gave is part of the shortcut."""
    dense, pruned = net(DENSE, w=(4, 4), v=(4, 4)), net(PRUNED, w=(4, 4))
    targets, linears = _targets(dense, pruned)
    copy = onnx.ModelProto()
    copy.CopyFrom(dense)
    names = ["s", "t", "u", "z"]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    values = {"x": x, **run(open_session(copy, threads=1), {"x": x}, names)}
    beside = targets.shortcut(values, Shortcut("x", "t", ()))
    np.testing.assert_allclose(beside, x + values["u"], rtol=1e-4, atol=1e-6)
    # Layer and shortcut together give the dense sum.
    np.testing.assert_allclose(targets.value(values, linears["m1"]) + beside, values["z"], rtol=1e-4, atol=1e-5)


def test_a_shortcut_without_branches_is_the_dense_tensor(net) -> None:
    pruned = net(PRUNED, w=(4, 4))
    targets, _ = _targets(pruned, pruned)
    x = RNG.standard_normal((3, 4))
    np.testing.assert_array_equal(targets.shortcut({"x": x, "t": x + 1}, Shortcut("x", "t", ())), x)
