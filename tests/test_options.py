"""Targets and options as the user writes them."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.model import Runtime
from onnx_subprune.options import Options, RecoveryOptions, Target


@pytest.mark.parametrize("text", ["macs=0.5", "params=1", "units=0.25", "variance=0.99"])
def test_a_target_reads_back_as_written(text: str) -> None:
    assert str(Target.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["macs", "macs=", "macs=half", "macs=0", "macs=1.5", "macs=-1", "macs=nan", "speed=0.5", ""]
)
def test_an_impossible_target_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(OptionError, match=r"expected .*=0\.5") as caught:
        Target.parse(text)
    assert "\n" not in str(caught.value)


BAD_OPTIONS: list[dict[str, object]] = [
    {"select": "best"},
    {"recovery": "magic"},
    {"allocation": "magic"},
    {"round_to": 0},
    {"samples": 0},
    {"batch_size": 0},
    {"ridge": -1.0},
    {"seed": -1},
    {"threads": 0},
]


@pytest.mark.parametrize("options", BAD_OPTIONS)
def test_an_impossible_option_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="expected"):
        Options(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"rows": 0}, {"probes": 0}, {"sweeps": 0}, {"recovery": "magic"}])
def test_an_impossible_recovery_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="expected"):
        RecoveryOptions(**options)  # type: ignore[arg-type]


def test_every_option_is_explained_beside_its_field_and_in_the_docstring() -> None:
    for options in (Options, RecoveryOptions):
        text = " ".join((options.__doc__ or "").split())
        for option in fields(options):
            assert option.metadata["help"].endswith(".")
            assert f"{option.name}: {option.metadata['help']}" in text


def test_a_plan_takes_over_the_recovery_and_nothing_else() -> None:
    options = Options(Target("params", 0.4), recovery="none", rows=4, seed=3)
    assert options.recovery_options == RecoveryOptions(recovery="none", rows=4)
    other = RecoveryOptions(recovery="channel", ridge=0.0, sweeps=3)
    replayed = options.with_recovery(other)
    assert replayed.recovery_options == other
    assert (replayed.target, replayed.seed) == (options.target, 3)


def test_tensors_to_compare_at_that_are_given_go_before_those_of_a_plan() -> None:
    planned = RecoveryOptions(outputs_at=("a", "b"))
    assert Options().with_recovery(planned).outputs_at == ("a", "b")
    assert Options(outputs_at=("c",)).with_recovery(planned).outputs_at == ("c",)
    assert Options(outputs_at=("c",)).with_recovery(RecoveryOptions()).outputs_at == ("c",)


def test_where_networks_run_is_one_value() -> None:
    assert Options(providers=("cuda", "cpu"), threads=2, batch_size=8).runtime == Runtime(("cuda", "cpu"), 2, 8)


def test_as_data_no_option_is_missing() -> None:
    document = Options().document()
    assert {**document, "target": Options().target} == {**asdict(Options()), "target": Options().target}
    assert (next(iter(document)), document["target"]) == ("target", "macs=0.5")


def test_a_target_out_of_reach_names_the_nearest_and_never_more_than_all() -> None:
    error = Target("macs", 0.5).out_of_reach("the smallest widths", 0.61231)
    assert error.nearest == 0.6124
    assert str(error).endswith("leave 0.6124 of the macs; ask for macs=0.6124 or more")
    assert Target.parse("macs=0.6124").value >= 0.61231
    beyond = Target("params", 0.5).out_of_reach("layers of rank 1", 1.5)
    assert str(beyond).endswith("leave 1.5000 of the params; leave the network as it is")


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_limit_of_time_is_a_time(seconds: float) -> None:
    with pytest.raises(OptionError, match="expected a time limit above 0"):
        Options(time_limit=seconds)
