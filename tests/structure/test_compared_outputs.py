"""Where networks are compared at some tensors alone, units that these cannot show stay whole."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

from onnx_subprune.pipeline import analyse

TEXT = """g (float[N,6] x) => (float[N,3] y, float[N,2] z) {
    [trunk] a = Gemm(x, w1)
    b = Relu(a)
    [left] c = Gemm(b, w2)
    d = Relu(c)
    [end] y = Gemm(d, w3)
    [right] e = Gemm(b, w4)
    f = Relu(e)
    [stop] z = Gemm(f, w5)
}"""
UNSEEN = ("no tensor that networks are compared at depends on it",)


@pytest.mark.parametrize(
    ("at", "frozen"),
    [
        ([], {}),
        (["y", "z"], {}),
        (["y"], {"right": UNSEEN}),
        (["z"], {"left": UNSEEN}),
        (["e"], {"left": UNSEEN, "right": ("networks are compared at 'e'",)}),
        (["b"], {"trunk": ("networks are compared at 'b'",), "left": UNSEEN, "right": UNSEEN}),
    ],
)
def test_units_that_no_comparison_shows_are_frozen(
    net: Callable[..., onnx.ModelProto], at: list[str], frozen: dict[str, tuple[str, ...]]
) -> None:
    model = net(TEXT, w1=(6, 8), w2=(8, 5), w3=(5, 3), w4=(8, 4), w5=(4, 2))
    groups = analyse(model, outputs_at=at).structure.groups
    reasons = {group.name: group.reasons for group in groups if group.name not in ("end", "stop")}
    assert {name: reason for name, reason in reasons.items() if reason} == frozen
