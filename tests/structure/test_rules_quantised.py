"""Quantised operators: refused with the order that works, by the rules and before any of them runs."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.errors import ModelError
from onnx_subprune.model import to_graph
from onnx_subprune.network.normalise import check_float
from onnx_subprune.structure import QUANTISED, infer

ROUND_TRIP = """[q] q = QuantizeLinear(h, scale, zero)
    [d] r = DequantizeLinear(q, scale, zero)"""
GIVEN = {"scale": np.float32(0.1), "zero": np.int8(0)}


def test_a_round_trip_is_refused_with_the_order_that_works(between):
    model = between(ROUND_TRIP, **GIVEN)
    with pytest.raises(ModelError, match=r"quantised nodes \(1 QuantizeLinear, 1 DequantizeLinear\); prune before"):
        check_float(model)


def test_the_rule_freezes_what_it_touches(between):
    structure = infer(to_graph(between(ROUND_TRIP, **GIVEN)), {"x": (2, 3, 6, 7)})
    (group,) = (group for group in structure.groups if group.name == "c1")
    assert not group.prunable
    assert "QuantizeLinear 'q' is quantised: prune the float model before quantising" in group.reasons


def test_operators_of_the_runtime_are_counted_too(net):
    model = net(
        """g (float[2,8] x) => (float[a,b] y) {
            [m] y = com.microsoft.MatMulNBits <K=8, N=4, bits=4, block_size=16> (x, packed, scales)
        }""",
        domains=', "com.microsoft" : 1', packed=np.zeros((4, 1, 8), np.uint8), scales=np.ones(4, np.float32),
    )  # fmt: skip
    with pytest.raises(ModelError, match="1 MatMulNBits"):
        check_float(model)


def test_a_quantised_node_in_a_body_is_found(net):
    model = net(
        """g (float[2,8] x, bool flag) => (float[2,8] y) {
            [if] y = If (flag) <
                then_branch = yes () => (float[2,8] a) { q = QuantizeLinear(x, scale, zero)
                                                         a = DequantizeLinear(q, scale, zero) },
                else_branch = no () => (float[2,8] b) { b = Relu(x) }
            >
        }""",
        **GIVEN,
    )
    with pytest.raises(ModelError, match="QuantizeLinear"):
        check_float(model)


def test_float_models_pass(between):
    check_float(between("[r] r = Relu(h)"))


def test_the_same_name_in_another_domain_is_another_operator():
    assert ("", "QuantizeLinear") in QUANTISED
    assert ("com.microsoft", "QLinearAdd") in QUANTISED
    assert ("", "QLinearAdd") not in QUANTISED
    assert ("some.other", "QuantizeLinear") not in QUANTISED
