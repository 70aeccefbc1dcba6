"""Operators that ONNX Runtime writes for GPUs, channels last: no kernel is here, so NumPy says what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.reference.op_run import OpRun

MS = ', "com.microsoft" : 1'
Array = np.ndarray[Any, Any]


def _normalised(x: Array, gamma: Array, beta: Array, groups: int, epsilon: float) -> Array:
    n, channels = x.shape[0], x.shape[-1]
    split = x.reshape(n, -1, groups, channels // groups)
    mean, variance = split.mean((1, 3), keepdims=True), split.var((1, 3), keepdims=True)
    scaled: Array = ((split - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * gamma + beta
    return scaled.astype(x.dtype)


class GroupNorm(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, gamma, beta, groups=None, epsilon=None, activation=None, channels_last=None):
        if channels_last == 0:
            return (np.moveaxis(_normalised(np.moveaxis(x, 1, -1), gamma, beta, groups, epsilon or 1e-5), -1, 1),)
        return (_normalised(x, gamma, beta, groups, epsilon or 1e-5),)


class SkipGroupNorm(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, gamma, beta, skip, bias=None, groups=None, epsilon=None, activation=None, channels_last=None):
        whole = x + (skip if skip.ndim == 4 else skip[:, None, None, :]) + (0 if bias is None else bias)
        return _normalised(whole, gamma, beta, groups, epsilon or 1e-5), whole


class NhwcConv(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, w, b=None, group=None, pads=None, **_):
        top, left, bottom, right = pads
        x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
        n, height, width, channels = x.shape
        (outputs, kh, kw, inputs), groups = w.shape, group or 1
        y = np.zeros((n, height - kh + 1, width - kw + 1, groups, outputs // groups), x.dtype)
        split = x.reshape(n, height, width, groups, channels // groups)
        kernel = w.reshape(groups, outputs // groups, kh, kw, inputs)
        for i, j in np.ndindex(kh, kw):
            window = split[:, i : i + y.shape[1], j : j + y.shape[2]]
            y += np.einsum("nhwgc,goc->nhwgo", window, kernel[:, :, i, j])
        return (y.reshape(*y.shape[:3], outputs) + (0 if b is None else b),)


class BiasSplitGelu(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, bias):
        left, right = np.split(x + bias, 2, axis=-1)
        return (left * np.tanh(right),)


class BiasAdd(OpRun):
    op_domain = "com.microsoft"

    def _run(self, x, bias, skip):
        return (x + bias + skip,)


@pytest.mark.parametrize(
    ("shape", "first", "last"),
    [("channels_last=1, ", "[m1] h = MatMul(x, w1)", "[m2] y = MatMul(r, w2)"),
     ("channels_last=0, ", "[m1] k = MatMul(x, w1) h = Transpose <perm=[0,3,1,2]> (k)",
      "q = Transpose <perm=[0,2,3,1]> (r) [m2] y = MatMul(q, w2)"),
     ("", "[m1] h = MatMul(x, w1)", "[m2] y = MatMul(r, w2)")],
)  # fmt: skip
def test_whole_groups_go_from_a_group_norm(net, holds_by_definition, shape, first, last):
    text = f"[n] r = com.microsoft.GroupNorm <{shape}groups=4, activation=0> (h, gamma, beta)"
    model = net(
        f"g (float[2,5,6,3] x) => (float[a,b,c,d] y) {{ {first} {text} {last} }}",
        domains=MS, w1=(3, 12), w2=(12, 5), gamma=(12,), beta=(12,),
    )  # fmt: skip
    structure = holds_by_definition(model, {"m1": 4}, [GroupNorm])
    assert any("GroupNorm 'n' normalises over this axis" in g.reasons for g in structure.frozen if g.size == 3)


@pytest.mark.parametrize("skip", ["s", "f"])
def test_a_sum_goes_into_a_group_norm_and_out(net, holds_by_definition, skip):
    model = net(
        f"""g (float[2,5,6,3] x, float[2,3] z) => (float[a,b,c,d] y) {{
            [m1] h = MatMul(x, w1)
            [m2] s = MatMul(x, w2)
            [m3] f = MatMul(z, w2)
            [n] n, t = com.microsoft.SkipGroupNorm <groups=3, activation=0> (h, gamma, beta, {skip}, b)
            a = Add(n, t)
            [m4] y = MatMul(a, w4)
        }}""",
        domains=MS, w1=(3, 12), w2=(3, 12), w4=(12, 5), gamma=(12,), beta=(12,), b=(12,),
    )  # fmt: skip
    structure = holds_by_definition(model, {"m1": 3}, [SkipGroupNorm])
    assert {use.constant.name for use in structure.prunable[0].producers} == {"w1", "w2"}


@pytest.mark.parametrize("group", [1, 2])
def test_a_conv_with_its_channels_last(net, holds_by_definition, group):
    model = net(
        f"""g (float[2,5,6,4] x) => (float[a,b,c,d] y) {{
            [c1] h = com.microsoft.NhwcConv <group=1, pads=[1,1,1,1]> (x, w1, b1)
            r = Tanh(h)
            [c2] y = com.microsoft.NhwcConv <group={group}, pads=[0,0,0,0]> (r, w2, b2)
        }}""",
        domains=MS, w1=(8, 3, 3, 4), b1=(8,), w2=(6, 2, 2, 8 // group), b2=(6,),
    )  # fmt: skip
    structure = holds_by_definition(model, {"c1": 8} if group == 1 else {"c1#2": 4}, [NhwcConv])
    group_of = structure.prunable[0]
    assert [use.axis for use in group_of.producers] == [0]
    assert [consumer.contracted for consumer in group_of.consumers] == [3]
    assert group_of.macs > 0


def test_a_weight_of_another_layout_is_refused(net, refuses):
    model = net(
        """g (float[2,5,6,4] x) => (float[a,b,c,d] y) {
            [m1] h = MatMul(x, w1)
            [c2] y = com.microsoft.NhwcConv(h, w2)
        }""",
        domains=MS, w1=(4, 8), w2=(6, 8, 3, 3),
    )  # fmt: skip
    refuses(model, {"m1": "NhwcConv 'c2' has a weight of another layout than its input"})


def test_the_halves_of_a_gate_lose_the_same_units(net, holds_by_definition):
    model = net(
        """g (float[2,5,4] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            r = com.microsoft.BiasSplitGelu(h, b1)
            [m2] y = MatMul(r, w2)
        }""",
        domains=MS, w1=(4, 16), b1=(16,), w2=(8, 5),
    )  # fmt: skip
    holds_by_definition(model, {"m1#2": 8}, [BiasSplitGelu])


def test_a_bias_and_a_skip_are_added(net, holds_by_definition):
    model = net(
        """g (float[2,5,4] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [m2] s = MatMul(x, w2)
            r = com.microsoft.BiasAdd(h, b, s)
            [m3] y = MatMul(r, w3)
        }""",
        domains=MS, w1=(4, 8), w2=(4, 8), b=(8,), w3=(8, 5),
    )  # fmt: skip
    holds_by_definition(model, {"m1": 8}, [BiasAdd])
