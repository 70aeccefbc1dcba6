"""What the page shows beside the document, against figures worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.report.page_views import analysis_view, pruning_view


def group(name: str, units: int = 8, kept: int = 4, macs: int = 100, **entries: Any) -> dict[str, Any]:
    return {"name": name, "units": units, "kept": kept, "macs": macs, "curve": None, **entries}


def document(**entries: Any) -> dict[str, Any]:
    """Return the document of a pruning, with only what the page's view reads."""
    return {
        "dense": {"macs": 2000, "parameters": 400, "bytes": 1600},
        "pruned": {"macs": 500, "parameters": 300, "bytes": 1200},
        "operators": {"dense": {"Conv": 2, "Relu": 1}, "pruned": {"Conv": 2, "Gather": 3}},
        "groups": [group("a"), group("b", units=12, kept=12)],
        "frozen": [],
        "losses_at": None,
        "select": "variance",
        "recovery": "channel",
        "warnings": [],
        "command": ["onnx-subprune", "prune"],
        **entries,
    }


def cards(**entries: Any) -> dict[str, dict[str, str]]:
    return {card["name"]: card for card in pruning_view(document(**entries))["cards"]}


def output(relative: float, agreement: float | None) -> dict[str, Any]:
    return {"relative_l2": relative, "agreement": agreement}


def timing(ratio: float = 0.5, interval: tuple[float, float] | None = None, **entries: Any) -> dict[str, Any]:
    return {
        "dense": {"median_ms": 4.0, "ratio_to_first": 1.0, "ratio_interval": None},
        "pruned": {"median_ms": 2.0, "ratio_to_first": ratio, "ratio_interval": interval},
        "profile": {"operators": []},
        "input_shapes": {"x": [1, 3]},
        "threads": None,
        **entries,
    }


def test_costs_are_shares_of_the_dense_ones() -> None:
    shown = cards()
    assert list(shown) == ["MACs", "Parameters", "Size"]
    assert shown["MACs"] == {"name": "MACs", "value": "25.0%", "before": "2.00 k", "after": "500", "note": ""}
    assert shown["Parameters"]["value"] == "75.0%"
    assert (shown["Size"]["before"], shown["Size"]["after"]) == ("1.60 kB", "1.20 kB")


def test_a_network_without_macs_has_a_dash() -> None:
    nothing = {"macs": 0, "parameters": 0, "bytes": 10}
    assert cards(dense=nothing, pruned=nothing)["MACs"]["value"] == "-"


def test_accuracy_comes_before_closeness_and_both_before_costs() -> None:
    top1 = {"dense": {"accuracy": 0.9, "samples": 1000}, "pruned": {"accuracy": 0.875, "samples": 1000}}
    fidelity = {"samples": 7, "outputs": {"y": output(0.1, 0.5)}}
    shown = cards(top1=top1, fidelity=fidelity, timing=timing())
    assert list(shown) == ["Top-1 accuracy", "Latency, measured", "MACs", "Parameters", "Size"]
    card = shown["Top-1 accuracy"]
    assert (card["value"], card["before"], card["after"]) == ("-2.5 points", "90.0%", "87.5%")
    assert card["note"] == "on 1,000 labelled samples"


def test_of_several_outputs_the_worst_counts() -> None:
    agreeing = {"samples": 1234, "outputs": {"a": output(0.9, 0.75), "b": output(0.1, 0.5), "c": output(2.0, None)}}
    card = cards(fidelity=agreeing)["Same largest class"]
    assert card["value"] == "50.0%"
    assert "1,234 calibration samples" in card["note"]
    plain = {"samples": 3, "outputs": {"a": output(0.012, None), "b": output(0.123, None)}}
    assert cards(fidelity=plain)["Error at the outputs"]["value"] == "12%"
    saturated = {"samples": 3, "outputs": {"a": {**output(99.0, None), "compared_at": ["p"]}}}
    inside = {**saturated, "points": {"p": output(0.045, None)}}
    assert cards(fidelity=inside)["Error at the outputs"]["value"] == "4.5%"


def test_a_latency_that_was_the_target_is_shown_before_one_that_was_timed() -> None:
    met = {"dense_ms": 10.0, "pruned_ms": 6.0, "measured": 0.61, "interval": (0.58, 0.64), "shapes": {}, "threads": 1}
    card = cards(latency=met, timing=timing())["Latency, measured"]
    assert (card["value"], card["before"], card["after"]) == ("61.0%", "10.0 ms", "6.00 ms")
    assert card["note"] == "95% sure of 58.0% to 64.0%"
    timed = cards(latency=None, timing=timing(ratio=0.55))["Latency, measured"]
    assert (timed["value"], timed["before"], timed["after"], timed["note"]) == ("55.0%", "4.00 ms", "2.00 ms", "")


def test_the_verdict_counts_groups_and_units() -> None:
    groups = [group("a", 1024, 1000), group("b", 512, 512), group("c", 8, 0)]
    verdict = pruning_view(document(groups=groups, recovery="none"))["verdict"]
    assert verdict == ("2 of 3 prunable groups lost 32 of 1,544 units; units chosen by variance, nothing recovered.")
    assert pruning_view(document(groups=groups))["whole"] == 1


@pytest.mark.parametrize(("recovery", "words"), [
    ("exact", "every layer then fitted to the dense network in closed form"),
    ("channel", "what they contributed recovered by least squares, channel by channel"),
])  # fmt: skip
def test_the_verdict_says_how_was_recovered(recovery: str, words: str) -> None:
    assert pruning_view(document(recovery=recovery))["verdict"].endswith(f"{words}.")


def test_operators_of_either_model_are_listed_by_name() -> None:
    assert pruning_view(document())["operators"] == [("Conv", 2, 2), ("Gather", 0, 3), ("Relu", 1, 0)]


def test_the_command_can_be_pasted() -> None:
    command = ["onnx-subprune", "prune", "my model.onnx", "it's.onnx"]
    assert pruning_view(document(command=command))["command"] == (
        "onnx-subprune prune 'my model.onnx' 'it'\"'\"'s.onnx'"
    )


def test_warnings_of_what_was_timed_come_first_and_many_are_folded() -> None:
    warnings = [f"warning {number}" for number in range(10)]
    timed = timing(warnings=["slow"])
    shown, folded = pruning_view(document(timing=timed, refusals=["no opset"], warnings=warnings))["warnings"]
    assert shown[:3] == ["slow", "left out while the model was normalised: no opset", "warning 0"]
    assert len(shown) == 8
    assert folded == warnings[6:]


def row(operator: str, dense: float, pruned: float) -> dict[str, Any]:
    return {"operator": operator, "dense": {"ms": dense}, "pruned": {"ms": pruned}}


def test_bars_are_percent_of_the_longest_time_in_either_model() -> None:
    rows = [row("Conv", 2.0, 4.0), row("Relu", 0.5, 0.0), row("Gather", 0.0, 1.333)]
    shown = pruning_view(document(timing=timing(profile={"operators": rows})))["profile"]
    assert [entry["bars"] for entry in shown] == [[50.0, 100.0], [12.5, 0.0], [0.0, 33.3]]
    assert [entry["operator"] for entry in shown] == ["Conv", "Relu", "Gather"]


def test_where_no_time_was_measured_there_are_no_bars_and_none_divide_by_nought() -> None:
    assert pruning_view(document())["profile"] == []
    shown = pruning_view(document(timing=timing(profile={"operators": [row("Conv", 0.0, 0.0)]})))["profile"]
    assert shown[0]["bars"] == [0.0, 0.0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=38, max_size=60))
def test_the_groups_shown_at_once_are_the_heaviest_in_their_own_order(macs: list[int]) -> None:
    groups = [group(f"g{number}", macs=value) for number, value in enumerate(macs)]
    shown, folded = pruning_view(document(groups=groups))["groups"]
    assert len(shown) == min(40, len(groups))
    assert sorted(shown + folded, key=groups.index) == groups
    for part in (shown, folded):
        assert [groups.index(entry) for entry in part] == sorted(groups.index(entry) for entry in part)
    if folded:
        assert min(entry["macs"] for entry in shown) >= max(entry["macs"] for entry in folded)


def curved(name: str, variance: float) -> dict[str, Any]:
    return group(name, 4, 2, curve={"kept": [0, 2, 4], "loss": None, "variance": [0.0, variance, 1.0]})


def test_panels_are_shown_folded_and_at_last_left_out() -> None:
    groups = [curved(f"g{number}", 0.5) for number in range(403)]
    shown, folded, left_out = pruning_view(document(groups=groups))["panels"]
    assert (len(shown), len(folded), left_out) == (12, 388, 3)


def test_the_scale_is_that_of_the_panels_and_is_none_without_any() -> None:
    view = pruning_view(document(groups=[curved("a", 0.75), curved("b", 0.5)]))
    # The largest loss taken is 0.5, and the scale ends at 1.6 of it.
    assert view["top"] == "80%"
    assert [panel.name for panel in view["panels"][0]] == ["b", "a"]
    assert pruning_view(document())["top"] is None


@pytest.mark.parametrize(("losses_at", "words"), [
    ("outputs", "relative error at the network's outputs"), ("consumers", "root of the squared error"),
    (None, "share of variance that is lost"),
])  # fmt: skip
def test_what_a_loss_is_depends_on_where_it_was_measured(losses_at: str | None, words: str) -> None:
    assert words in pruning_view(document(losses_at=losses_at))["losses"]


def test_an_analysis_says_what_share_can_be_pruned() -> None:
    analysed = {
        "dense": {"macs": 1_500_000, "parameters": 20_000, "bytes": 80_000},
        "prunable_share": {"macs": 0.875, "parameters": 0.5},
        "groups": [group("a")],
        "frozen": [group("f")],
        "rule_errors": [{"operator": "Relu", "node": "r", "error": "boom"}],
    }
    view = analysis_view(analysed)
    values = {card["name"]: (card["value"], card["note"][:5]) for card in view["cards"]}
    assert values == {"MACs": ("1.50 M", "87.5%"), "Parameters": ("20.0 k", "50.0%"), "Size": ("80.0 kB", "")}
    assert view["groups"] == ([analysed["groups"][0]], [])
    assert view["frozen"] == ([analysed["frozen"][0]], [])
    assert view["notices"] == ["internal error of the rule for Relu at node 'r': boom; please report this"]
