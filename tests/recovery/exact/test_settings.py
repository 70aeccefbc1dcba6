"""How layers are fitted follows from the options of a run."""

from __future__ import annotations

import dataclasses

import pytest

from onnx_subprune.calibration import HELD
from onnx_subprune.options import Options
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.stages import by_channel, settings


def test_options_become_settings() -> None:
    options = Options(one_pass=True, rows=48, batch_size=7, seed=3, providers=("cpu",), threads=2)
    expected = Settings(sequential=False, rows=48, batch_size=7, seed=3, providers=("cpu",), threads=2)
    assert settings(options) == expected


def test_samples_are_held_out_whatever_the_options() -> None:
    assert settings(Options()).held == Settings().held == HELD
    assert settings(Options()).sequential


def test_settings_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().rows = 1  # type: ignore[misc]


@pytest.mark.parametrize(("recovery", "cheap"), [("exact", "channel"), ("channel", "channel"), ("none", "none")])
def test_a_recovery_that_runs_no_samples(recovery: str, cheap: str) -> None:
    options = Options(recovery=recovery, rows=5)  # type: ignore[arg-type]
    assert by_channel(options) == dataclasses.replace(options, recovery=cheap)
