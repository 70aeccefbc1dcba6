"""Numbers of the tables against figures worked out by hand, where there is much, little or nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from printed import printed_words
from rich.table import Table

from onnx_subprune import report
from onnx_subprune.evaluate import Fidelity, Latency, Memory, NodeTime, OutputFidelity, Perplexity, Profile, Top1
from onnx_subprune.report.metric_tables import accuracy_table, fidelity_table, perplexity_table
from onnx_subprune.report.pruning_tables import (
    cost_table,
    drop_line,
    forecast_line,
    odd_widths_line,
    rank_table,
    width_table,
)
from onnx_subprune.report.speed_tables import latency_table, node_table, operator_table
from onnx_subprune.report.table import table

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def cells(drawn: Table) -> list[tuple[str, ...]]:
    """Return the cells of every row, not broken into lines."""
    return list(zip(*(map(str, column.cells) for column in drawn.columns), strict=True))


def heads(drawn: Table) -> list[str]:
    return [str(column.header) for column in drawn.columns]


def costs(**entries: Any) -> dict[str, Any]:
    return {
        "dense": {"macs": 12_000, "parameters": 999, "bytes": 3996},
        "pruned": {"macs": 3000, "parameters": 500, "bytes": 2000},
        "operators": {"dense": {"Conv": 2, "Relu": 1}, "pruned": {"Conv": 2, "Gather": 1}},
        "latency": None,
        "groups": [],
        "errors": {},
        **entries,
    }


def test_costs_stand_side_by_side() -> None:
    assert cells(cost_table(costs())) == [
        ("parameters", "999", "500", "50.1%"),
        ("MACs", "12.0 k", "3.00 k", "25.0%"),
        ("size", "4.00 kB", "2.00 kB", "50.1%"),
        ("nodes", "3", "3", "100.0%"),
        ("  Conv", "2", "2", "100.0%"),
        ("  Gather", "0", "1", "-"),
        ("  Relu", "1", "0", "0.0%"),
    ]


def test_a_title_stands_above_the_costs() -> None:
    assert str(cost_table(costs(), "Pruned to macs=0.25").title) == "Pruned to macs=0.25"
    assert cost_table(costs()).title is None


def member(name: str, units: int, kept: int, consumers: tuple[str, ...] = (), entries: int = 1) -> dict[str, Any]:
    return {"name": name, "units": units, "kept": kept, "consumers": list(consumers), "entries": entries}


def test_a_group_shows_the_largest_share_lost_among_its_consumers() -> None:
    groups = [member("a", 8, 3, ("c1", "c2", "c3")), member("b", 3, 3, ("c4",)), member("c", 7, 0)]
    document = costs(groups=groups, errors={"c1": 0.012, "c2": 0.25})
    assert cells(width_table(document)) == [
        ("a", "8", "3", "38%", "25.0%"),
        ("b", "3", "3", "100%", "-"),
        ("c", "7", "0", "0%", "-"),
    ]


@pytest.mark.parametrize(("groups", "odd", "of"), [
    ([member("a", 16, 9)], 1, 1),
    ([member("a", 16, 8)], 0, 1),
    # What was odd before is no worse than it was.
    ([member("a", 12, 5)], 0, 1),
    # Four units of four entries are 16 numbers wide.
    ([member("a", 4, 2, entries=4)], 0, 1),
    ([member("a", 4, 3, entries=4)], 1, 1),
    # Whole groups and those that are gone are not cut.
    ([member("a", 16, 16), member("b", 16, 0), member("c", 24, 23), member("d", 24, 16)], 1, 2),
])  # fmt: skip
def test_widths_are_odd_where_they_were_even(groups: list[dict[str, Any]], odd: int, of: int) -> None:
    line = odd_widths_line(costs(groups=groups))
    assert (line is None) == (odd == 0)
    assert line is None or f"{odd} of {of} widths are no multiples of 8" in line


def test_nothing_is_said_of_widths_that_were_timed() -> None:
    groups = [member("a", 16, 9)]
    assert odd_widths_line(costs(groups=groups, latency={"measured": 0.5})) is None
    assert odd_widths_line(costs(groups=groups, timing={})) is None


def layer(**entries: Any) -> dict[str, Any]:
    return {
        "name": "w", "features": 64, "outputs": 32, "rank": 8, "macs": 2048, "macs_kept": 768, "share": 0.9, **entries
    }  # fmt: skip


def test_ranks_of_layers_that_stay_are_dashes() -> None:
    layers = [layer(), layer(rank=None, macs_kept=2048, share=1.0), layer(macs=0, macs_kept=0)]
    assert cells(rank_table({"layers": layers})) == [
        ("w", "64 x 32", "8", "38%", "10.0%"),
        ("w", "64 x 32", "-", "100%", "-"),
        ("w", "64 x 32", "8", "-", "10.0%"),
    ]


def test_a_drop_of_a_metric_of_the_caller_has_its_own_unit() -> None:
    drop = {"metric": "given", "fall": 0.123456, "allowed": 0.2, "tried": [1, 2, 3], "cost": "macs"}
    assert drop_line({"drop": drop}) == (
        "the metric falls by 0.1235, of 0.2 allowed; the smallest of 3 networks by its macs"
    )
    assert drop_line({}) is None


LATENCY = Latency(2.0, 3.5, 2.2, 500.0, 0.8, (0.5, 1.25))


def test_an_interval_of_ratios_is_one_of_speed_ups_the_other_way_round() -> None:
    (row,) = cells(latency_table(["m"], [LATENCY]))
    assert row == ("m", "2.000 ms", "3.500 ms", "500.0 / s", "1.25 x", "0.80 to 2.00")
    (row,) = cells(latency_table(["m"], [replace(LATENCY, ratio_interval=None)]))
    assert row[-1] == "-"


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 20), st.floats(0.05, 20))
def test_the_ends_of_an_interval_of_speed_ups_are_in_order(low: float, high: float) -> None:
    interval = (min(low, high), max(low, high))
    (row,) = cells(latency_table(["m"], [replace(LATENCY, ratio_interval=interval)]))
    first, last = (float(word) for word in row[-1].split(" to "))
    assert first <= last
    assert first == pytest.approx(1 / interval[1], abs=0.0051)
    assert last == pytest.approx(1 / interval[0], abs=0.0051)


def test_memory_is_a_column_only_where_it_was_measured() -> None:
    drawn = latency_table(["a", "b"], [LATENCY, LATENCY], memory=[Memory(12_345_678, 1), Memory(999, 1)])
    assert heads(drawn)[-1] == "peak memory"
    assert [row[-1] for row in cells(drawn)] == ["12.3 MB", "999 B"]
    assert "peak memory" not in heads(latency_table(["a"], [LATENCY]))


def test_a_row_for_each_model_or_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        latency_table(["a", "b"], [LATENCY])
    with pytest.raises(ValueError, match="zip"):
        accuracy_table(["a"], [Top1(1.0, 1, 1), Top1(0.5, 1, 2)])


def node(name: str, operator: str, seconds: float, provider: str = CPU, shapes: Any = ()) -> NodeTime:
    return NodeTime(name, operator, provider, seconds, (), shapes)


def timed(*nodes: NodeTime, between: float = 0.0, providers: tuple[str, ...] = (CPU,)) -> Profile:
    return Profile(nodes, sum(node.seconds for node in nodes) + between, between, 4, providers)


def test_an_operator_that_one_model_lacks_is_a_dash() -> None:
    dense = timed(node("c", "Conv", 0.002), node("d", "Conv", 0.001), node("r", "Relu", 0.004), between=0.0005)
    pruned = timed(node("c", "Conv", 0.0015), node("g", "Gather", 0.0001))
    drawn = operator_table(["/a/dense.onnx", "pruned.onnx"], [dense, pruned])
    assert heads(drawn) == ["operator", "dense.onnx", "pruned.onnx"]
    assert cells(drawn) == [
        ("Relu", "4.000 ms in 1", "-"),
        ("Conv", "3.000 ms in 2", "1.500 ms in 1"),
        ("Gather", "-", "0.100 ms in 1"),
        ("between nodes", "0.500 ms", "0.000 ms"),
    ]


def test_the_longest_nodes_are_shown_and_their_share_of_all() -> None:
    nodes = [node(f"n{number}", "Conv", number / 1000, shapes=((1, number), ())) for number in range(1, 5)]
    drawn = node_table("m.onnx", timed(*nodes, between=5.0), most=2)
    assert str(drawn.title) == "m.onnx: the 2 longest of 4 nodes"
    assert cells(drawn) == [
        ("n4", "Conv", "CPU", "1x4, ", "4.000 ms", "40.0%"),
        ("n3", "Conv", "CPU", "1x3, ", "3.000 ms", "30.0%"),
    ]


def test_nodes_that_take_no_time_have_no_share() -> None:
    assert cells(node_table("m", timed(node("n", "Identity", 0.0))))[0][-1] == "-"
    assert cells(node_table("m", timed())) == []


def test_nodes_that_fell_back_are_those_elsewhere_than_on_the_first_provider() -> None:
    profile = timed(node("a", "Conv", 1.0, CUDA), node("b", "Shape", 1.0), providers=(CUDA, CPU))
    assert [entry.name for entry in profile.fallen] == ["b"]
    assert [row[0] for row in cells(operator_table(["m"], [profile]))][:2] == ["Conv on CUDA", "Shape on CPU"]


def test_accuracies_are_compared_in_points() -> None:
    rows = cells(accuracy_table(["a", "b"], [Top1(0.75, 3, 4), Top1(2 / 3, 2, 3)]))
    assert rows == [("a", "75.00%", "+0.00", "3 / 4"), ("b", "66.67%", "-8.33", "2 / 3")]


def test_a_perplexity_without_end_is_told_as_one() -> None:
    rows = cells(perplexity_table(["a", "b"], [Perplexity(12.5, 2.5257, 99, 3), Perplexity(math.inf, 800.0, 99, 3)]))
    assert rows == [("a", "12.5", "+0", "2.5257", "99"), ("b", "inf", "+inf", "800.0000", "99")]


def test_a_row_for_every_output_of_every_model() -> None:
    classes = OutputFidelity(0.0123456, 0.99, 2.5, 0.875, 0.00321)
    values = OutputFidelity(math.inf, 0.0, math.inf)
    rows = cells(fidelity_table(["m", "n"], [Fidelity({"y": classes, "z": values}, 8), Fidelity({"y": values}, 8)]))
    assert rows == [
        ("m", "y", "1.23e-02", "0.990000", "2.50e+00", "87.50%", "3.21e-03"),
        ("m", "z", "inf", "0.000000", "inf", "-", "-"),
        ("n", "y", "inf", "0.000000", "inf", "-", "-"),
    ]


def test_a_side_for_every_column() -> None:
    with pytest.raises(ValueError, match="zip"):
        table(("a", "b"), [], "l")
    assert heads(table(("a", "b"), [], "lr", "title")) == ["a", "b"]


def analysed(**entries: Any) -> dict[str, Any]:
    return {
        "dense": {"macs": 1000, "parameters": 200, "bytes": 800},
        "prunable_share": {"macs": 0.5, "parameters": 0.25},
        "groups": [],
        "frozen": [],
        **entries,
    }


def test_a_producer_counts_once_and_a_model_without_macs_has_no_shares() -> None:
    groups = [
        {
            "name": "g", "units": 4, "producers": ["a", "a", "b"], "consumers": ["c", "d", "c"], "contractions": [],
            "macs": 250,
        }
    ]  # fmt: skip
    assert cells(report.group_table(analysed(groups=groups))) == [("g", "4", "2", "c +1", "250", "25.0%")]
    nothing = {"macs": 0, "parameters": 200, "bytes": 800}
    assert cells(report.group_table(analysed(groups=groups, dense=nothing)))[0][-1] == "-"


def test_totals_count_frozen_groups_too() -> None:
    ice = {"name": "f", "units": 2, "reasons": ["it is an output"]}
    line = report.totals(analysed(frozen=[ice, ice, ice]))
    assert line.startswith("0 of 3 groups can be pruned; they touch 25.0% of 200 parameters and 50.0% of 1.00 k MACs")
    assert cells(report.frozen_table(analysed(frozen=[ice]))) == [("f", "2", "it is an output")]


def test_rules_that_fail_alike_are_one_sentence_and_others_are_their_own() -> None:
    errors = [
        {"operator": operator, "node": name, "error": error}
        for operator, name, error in [("Relu", "a", "x"), ("Relu", "b", "y"), ("Relu", "c", "x"), ("Conv", "d", "x")]
    ]
    lines = report.notice_lines({"rule_errors": errors, "refusals": ["an Einsum"]})
    assert [line.split(":")[0] for line in lines] == [
        "left out while the model was normalised",
        "internal error of the rule for Relu at node 'a' and 1 more",
        "internal error of the rule for Relu at node 'b'",
        "internal error of the rule for Conv at node 'd'",
    ]
    assert report.notice_lines({}) == []


def test_brackets_are_printed_as_they_are() -> None:
    assert ["layer[0]/[bold]", "1"] in printed_words(table(("name", "n"), [("layer[0]/[bold]", "1")], "lr"))


def test_what_a_run_took_stands_beside_what_was_expected() -> None:
    course = {"taken_seconds": 61.0, "expected_seconds": 55.0, "left_out": []}
    assert forecast_line(costs(forecast=course)) == "took 1 min 1 s, expected 55 s"
    left_out = {**course, "left_out": ["rows 32 in the place of 128", "probes 8 in the place of 16"]}
    line = forecast_line(costs(forecast=left_out))
    assert line is not None
    assert line.endswith("left out for --time-limit: rows 32 in the place of 128; probes 8 in the place of 16")
    assert forecast_line(costs()) is None
