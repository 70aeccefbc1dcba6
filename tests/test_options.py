"""Targets and options as the user writes them."""

from __future__ import annotations

import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.options import Options, Target


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
