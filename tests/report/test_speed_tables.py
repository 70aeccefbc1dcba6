"""Latencies side by side, and where the time goes."""

from __future__ import annotations

from printed import printed_words

from onnx_subprune import report
from onnx_subprune.evaluate import Latency, Memory, NodeTime, Profile


def test_the_speed_up_is_the_inverse_of_the_paired_ratio() -> None:
    rows = printed_words(report.latency_table(["m"], [Latency(2.0, 3.0, 2.5, 500.0, 0.5)]))
    assert ["m", "2.000", "ms", "3.000", "ms", "500.0", "/", "s", "2.00", "x", "-"] in rows
    sure = Latency(2.0, 3.0, 2.5, 500.0, 0.5, (0.4, 0.8))
    rows = printed_words(report.latency_table(["m"], [sure], memory=[Memory(2_000_000, 1_000_000)]))
    assert next(row for row in rows if row[:1] == ["m"])[8:] == ["2.00", "x", "1.25", "to", "2.50", "2.00", "MB"]


def test_operators_stand_side_by_side_and_nodes_by_their_length() -> None:
    cpu = "CPUExecutionProvider"
    nodes = tuple(NodeTime(f"n{i}", "Conv" if i else "Add", cpu, 1e-3 * i, (), ((1, i),)) for i in range(4))
    dense, pruned = Profile(nodes, 7e-3, 1e-3, 5, (cpu,)), Profile(nodes[1:3], 4e-3, 5e-4, 5, (cpu,))
    rows = printed_words(report.operator_table(["a/dense.onnx", "a/pruned.onnx"], [dense, pruned]))
    assert ["Conv", "6.000", "ms", "in", "3", "3.000", "ms", "in", "2"] in rows
    assert ["Add", "0.000", "ms", "in", "1", "-"] in rows
    assert ["between", "nodes", "1.000", "ms", "0.500", "ms"] in rows
    rows = printed_words(report.node_table("m", dense, most=2))
    assert [row for row in rows if row[:1] and row[0].startswith("n") and row[0][1:].isdigit()] == [
        ["n3", "Conv", "CPU", "1x3", "3.000", "ms", "50.0%"],
        ["n2", "Conv", "CPU", "1x2", "2.000", "ms", "33.3%"],
    ]


def test_operators_of_several_providers_say_where_they_ran() -> None:
    nodes = (NodeTime("a", "Conv", "CUDAExecutionProvider", 2e-3), NodeTime("b", "Shape", "CPUExecutionProvider", 1e-6))
    rows = printed_words(report.operator_table(["m"], [Profile(nodes, 3e-3, 1e-3, 1, ("CUDAExecutionProvider",))]))
    assert ["Conv", "on", "CUDA", "2.000", "ms", "in", "1"] in rows
    assert ["Shape", "on", "CPU", "0.001", "ms", "in", "1"] in rows
