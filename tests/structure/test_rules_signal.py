"""DFT: channels pass, the axis that is transformed does not."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("opset", "text", "entries", "parts"),
    [
        (17, "DFT <axis=2, onesided=1> (u)", 4, 2),
        (17, "DFT <axis=2> (u, length)", 5, 2),
        (20, "DFT <onesided=1> (u, , axis)", 4, 2),
        (20, "DFT (u)", 6, 2),
        (20, "DFT <inverse=1> (u)", 6, 2),
    ],
)
def test_channels_pass(net, holds, opset, text, entries, parts):
    model = net(
        f"""g (float[2,3,6] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1, b1)
            [u] u = Unsqueeze(h, last)
            [t] t = {text}
            [r] r = Reshape(t, shape)
            [c2] y = Conv(r, w2)
        }}""",
        opset=opset, w1=(8, 3, 1), b1=(8,), w2=(4, 8, 1), last=np.array([3]),
        shape=np.array([0, 0, -1]), **({"length": np.array(5)} if "length" in text else {}),
        **({"axis": np.array(2)} if "axis)" in text else {}),
    )  # fmt: skip
    model.graph.output[0].type.tensor_type.shape.dim.pop()
    structure = holds(model, {"c1": 8})
    assert [dim.size for dim in structure.records.axes["t"]] == [2, 8, entries, parts]


def test_back_from_one_side(net, holds):
    model = net(
        """g (float[2,3,6] x) => (float[a,b,c] y) {
            [c1] h = Conv(x, w1, b1)
            [u] u = Unsqueeze(h, last)
            [t] t = DFT <onesided=1> (u)
            [n] n = Sigmoid(t)
            [i] i = DFT <onesided=1, inverse=1> (n)
            [s] s = Squeeze(i, last)
            [c2] y = Conv(s, w2)
        }""",
        opset=20, w1=(8, 3, 1), b1=(8,), w2=(4, 8, 1), last=np.array([3]),
    )  # fmt: skip
    structure = holds(model, {"c1": 8})
    assert [dim.size for dim in structure.records.axes["i"]] == [2, 8, 6, 1]


def test_channels_that_are_transformed_stay(net, refuses):
    model = net(
        """g (float[2,3,6] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [u] u = Unsqueeze(h, last)
            [t] y = DFT <axis=1> (u)
        }""",
        w1=(8, 3, 1), last=np.array([3]),
    )  # fmt: skip
    refuses(model, {"c1": "DFT 't' transforms this axis"})
