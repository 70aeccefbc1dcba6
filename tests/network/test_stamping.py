"""A finished network says what it was made from."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from onnx_subprune.model import measure_cost, model_bytes
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.stamping import stamp
from onnx_subprune.passes import read_stamp
from onnx_subprune.plan import Plan


def test_costs_of_both_networks_are_in_the_stamp(model: onnx.ModelProto, plan_at_random: Callable[..., Plan]) -> None:
    analysis = analyse(model)
    shrunk, _ = references(analysis, plan_at_random(analysis))
    pruned = stamp(shrunk, analysis, "units=0.5")
    written = read_stamp(shrunk)
    assert written is not None
    assert (written.target, written.dense_fingerprint) == ("units=0.5", analysis.fingerprint)
    assert (written.dense_macs, written.pruned_macs) == (6 * 8 + 8 * 5 + 5 * 3, 6 * 4 + 4 * 2 + 2 * 3)
    assert (written.dense_parameters, written.pruned_parameters) == (analysis.cost.parameters, pruned.parameters)
    assert pruned.macs == measure_cost(shrunk).macs == written.pruned_macs
    assert pruned.bytes == model_bytes(shrunk)
