"""Costs and widths before and after, and the sentences below them."""

from __future__ import annotations

import pytest
from printed import printed_words

from onnx_subprune import report
from onnx_subprune.pipeline import Result


def test_before_and_after(result: Result) -> None:
    rows = {row[0]: row[1:] for row in printed_words(report.cost_table(result.document())) if row}
    assert rows["MACs"] == ["80", "40", "50.0%"]
    assert rows["parameters"] == ["80", str(result.pruned.parameters), f"{result.pruned.parameters / 80:.1%}"]
    assert rows["nodes"][0] == "3"
    assert rows["MatMul"] == ["2", "2", "100.0%"]
    assert rows["Relu"] == ["1", "1", "100.0%"]


def test_widths(result: Result) -> None:
    lost = result.errors["second"]
    assert ["first", "10", "5", "50%", f"{lost:.1%}"] in printed_words(report.width_table(result.document()))


def test_what_was_measured_comes_first(result: Result) -> None:
    document = result.document()
    timing = {"dense": {"median_ms": 2.0}, "pruned": {"median_ms": 1.0, "ratio_to_first": 0.51}}
    top1 = {"dense": {"accuracy": 0.9}, "pruned": {"accuracy": 0.885}}
    lines = [line for line in printed_words(report.cost_table({**document, "timing": timing, "top1": top1})) if line]
    assert lines[2] == ["top-1", "90.0%", "88.5%", "-1.5", "points"]
    assert lines[3] == ["latency", "(median)", "2.00", "ms", "1.00", "ms", "51.0%"]
    assert lines[4][0] == "parameters"


def test_a_target_of_latency_has_its_row_unless_times_were_measured(result: Result) -> None:
    met = {"dense_ms": 2.0, "pruned_ms": 1.21, "measured": 0.605}
    document = {**result.document(), "latency": met}
    assert ["latency", "2.000", "ms", "1.210", "ms", "60.5%"] in printed_words(report.cost_table(document))
    timing = {"dense": {"median_ms": 2.0}, "pruned": {"median_ms": 1.0, "ratio_to_first": 0.51}}
    words = printed_words(report.cost_table({**document, "timing": timing}))
    assert [line[0] for line in words if line].count("latency") == 1


def test_odd_widths_are_told_of_where_nothing_was_timed(result: Result) -> None:
    document = result.document()
    (group,) = document["groups"]
    odd = {**document, "groups": [{**group, "units": 16, "kept": 5, "entries": 1}]}
    line = report.odd_widths_line(odd)
    assert line is not None
    assert "1 of 1 widths are no multiples of 8" in line
    # Heads of eight entries keep their alignment, and so does a group that stays or goes whole.
    for change in ({"entries": 8}, {"kept": 16}, {"kept": 0}, {"kept": 8}):
        assert report.odd_widths_line({**odd, "groups": [{**odd["groups"][0], **change}]}) is None
    assert report.odd_widths_line({**odd, "timing": {}}) is None
    assert report.odd_widths_line({**odd, "latency": {"measured": 0.5}}) is None


@pytest.mark.parametrize(("ratio", "interval", "words"), [
    (0.714, (0.70, 0.73), "faster: 71% of the dense model's time (70% to 73%, x 1x3x8; all threads)"),
    (0.98, (0.95, 1.01), "as fast as the dense model, as far as can be told: 98% of its time (95% to 101%, x 1x3x8"),
    (1.2, None, "slower than the dense model: 120% of its time (x 1x3x8; all threads); try --round-to auto, --target"),
])  # fmt: skip
def test_the_first_line_says_whether_the_model_is_faster(
    result: Result, ratio: float, interval: tuple[float, float] | None, words: str
) -> None:
    pruned = {"ratio_to_first": ratio, "ratio_interval": interval}
    timing = {"pruned": pruned, "input_shapes": {"x": (1, 3, 8)}, "threads": None}
    line = report.speed_line({**result.document(), "timing": timing})
    assert line is not None
    assert line.startswith(words)


def test_a_target_of_latency_has_its_ratio_in_the_first_line(result: Result) -> None:
    met = {"measured": 1.05, "interval": (1.01, 1.1), "shapes": {"x": (), "y": (2,)}, "threads": 1}
    document = {**result.document(), "latency": met, "options": {"round_to": "auto"}}
    line = report.speed_line(document)
    assert line == (
        "slower than the dense model: 105% of its time (101% to 110%, x scalar, y 2; threads: 1); "
        "try --target latency=F, or remove less"
    )
    assert report.speed_line(result.document()) is None


def test_a_drop_is_told_by_its_metric() -> None:
    drop = {"metric": "top-1", "allowed": 0.02, "fall": 0.018, "cost": "macs", "tried": [{}, {}, {}]}
    assert report.drop_line({}) is None
    assert report.drop_line({"drop": drop}) == (
        "top-1 falls by 1.80 points, of 2.00 allowed; the smallest of 3 networks by its macs"
    )
    same = report.drop_line({"drop": {**drop, "metric": "same class"}})
    assert same is not None
    assert same.startswith("1.80% of the samples change their largest class, of 2.00% allowed")
    given = report.drop_line({"drop": {**drop, "metric": "given"}})
    assert given is not None
    assert given.startswith("the metric falls by 0.018, of 0.02 allowed")


def test_ranks_show_what_is_kept_and_lost() -> None:
    cut = {"name": "fc1", "features": 64, "outputs": 32, "macs": 2048, "macs_kept": 768, "rank": 8, "share": 0.912}
    whole = {**cut, "name": "fc2", "rank": None, "share": 1.0, "macs_kept": 2048}
    lines = printed_words(report.rank_table({"layers": [cut, whole]}))
    assert ["fc1", "64", "x", "32", "8", "38%", "8.8%"] in lines
    assert ["fc2", "64", "x", "32", "-", "100%", "-"] in lines


def test_the_error_at_the_outputs_in_a_sentence() -> None:
    errors = {"pruned": 0.041, "unrecovered": 0.31, "samples": 1234, "held_out": True}
    assert report.output_error_line({"output_errors": errors}) == (
        "on 1,234 samples held out the outputs are off by 4.1%, without recovery by 31%"
    )
    seen = report.output_error_line({"output_errors": {**errors, "held_out": False}})
    assert seen is not None
    assert seen.startswith("on 1,234 samples the outputs")
    assert report.output_error_line({"output_errors": None}) is None
    assert report.output_error_line({}) is None


def test_what_networks_were_held_to_is_told() -> None:
    document = {"oracle": {"rounding": 3e-7, "tolerance": 1e-3}}
    assert report.oracle_line(document) == (
        "rounding alone moves the dense network by 3e-07; networks that should be the same were held to 0.001 of the "
        "largest value"
    )
    assert report.oracle_line(document, above=1e-3) is None
    assert report.oracle_line({}) is None
