"""Quantised operators: frozen with the order that works."""

from __future__ import annotations

import numpy as np

from onnx_subprune.model import to_graph
from onnx_subprune.structure import QUANTISED, infer

ROUND_TRIP = """[q] q = QuantizeLinear(h, scale, zero)
    [d] r = DequantizeLinear(q, scale, zero)"""
GIVEN = {"scale": np.float32(0.1), "zero": np.int8(0)}


def test_the_rule_freezes_what_it_touches(between):
    structure = infer(to_graph(between(ROUND_TRIP, **GIVEN)), {"x": (2, 3, 6, 7)})
    (group,) = (group for group in structure.groups if group.name == "c1")
    assert not group.prunable
    assert "QuantizeLinear 'q' is quantised: prune the float model before quantising" in group.reasons


def test_the_same_name_in_another_domain_is_another_operator():
    assert ("", "QuantizeLinear") in QUANTISED
    assert ("com.microsoft", "QLinearAdd") in QUANTISED
    assert ("", "QLinearAdd") not in QUANTISED
    assert ("some.other", "QuantizeLinear") not in QUANTISED
