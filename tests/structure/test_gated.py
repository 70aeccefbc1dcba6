"""Gated MLPs with gate and up in one matrix, in the spellings of exporters: the two go in pairs."""

from __future__ import annotations

import numpy as np
import pytest

CUTS = {
    "split": "[s] a, b = Split <axis=-1> (h, halves)",
    "slices": "[s1] a = Slice(h, zero, eight, last)\n[s2] b = Slice(h, eight, end, last)",
}
GATES = {
    "silu": "[g] g0 = Sigmoid(a)\n[m] g = Mul(a, g0)",
    "gelu": '[g] g = Gelu <approximate="tanh"> (a)',
    "erf": "[d] e0 = Div(a, c)\n[e] e1 = Erf(e0)\n[p] e2 = Add(e1, c)\n[m] e3 = Mul(a, e2)\n[n] g = Mul(e3, c)",
    "tanh": "[p] t0 = Pow(a, c)\n[m] t1 = Mul(t0, c)\n[ad] t2 = Add(a, t1)\n[t] t3 = Tanh(t2)\n[g] g = Mul(a, t3)",
    "quick": "[c] q0 = Mul(a, c)\n[g] q1 = Sigmoid(q0)\n[m] g = Mul(a, q1)",
    "fused": "[g] g = com.microsoft.QuickGelu(a)",
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("cut", CUTS)
def test_gate_and_up_in_one_matrix(net, holds, cut, gate, bias):
    weights = {"halves": np.array([8, 8])} if cut == "split" else {
        "zero": np.array([0]), "eight": np.array([8]), "end": np.array([2**31 - 1]), "last": np.array([-1]),
    }  # fmt: skip
    model = net(
        f"""g (float[2,5,6] x) => (float[p,q,r] y) {{
            [m1] h{"0" if bias else ""} = MatMul(x, w1)
            {"[b] h = Add(h0, b1)" if bias else ""}
            {CUTS[cut]}
            {GATES[gate]}
            [u] u = Mul(g, b)
            [m2] y = MatMul(u, w2)
        }}""",
        opset=20, ir=9, domains=', "com.microsoft" : 1', w1=(6, 16), w2=(8, 7), **weights,
        **({"b1": (16,)} if bias else {}), **({"c": np.float32(2)} if ", c)" in GATES[gate] else {}),
    )  # fmt: skip
    structure = holds(model, {"m1": 8})
    (group,) = structure.prunable
    # A column of gate, one of up, a row of what reads them, and the biases.
    lost = structure.parameters({}) - structure.parameters({group.atom: group.size - 1})
    assert lost == 2 * 6 + 7 + 2 * bias
