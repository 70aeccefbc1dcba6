from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from onnx_subprune.budget import affordable_uniform, in_proportion, uniform
from onnx_subprune.errors import OptionError, TargetError

Make = Callable[..., Any]


def units(counts: dict[str, int]) -> float:
    return float(sum(counts.values()))


def test_the_same_share_of_every_group(make_lossy: Make) -> None:
    curves = [make_lossy("a", [0.0] * 11), make_lossy("b", [0.0] * 21)]
    found = affordable_uniform(curves, units, 15.0)
    assert (found.counts, found.cost, found.cutoff) == ({"a": 5, "b": 10}, 15.0, None)
    assert found.counts == uniform(curves, 0.5)
    assert affordable_uniform(curves, units, 30.0).counts == {"a": 10, "b": 20}


def test_what_is_left_over_goes_to_those_next_in_line(make_lossy: Make) -> None:
    curves = [make_lossy(name, [0.0] * 5) for name in ("a", "b", "c")]
    assert affordable_uniform(curves, units, 8.0).counts == {"a": 3, "b": 3, "c": 2}
    dear = affordable_uniform(curves, lambda c: 10.0 * c["a"] + c["b"] + c["c"], 26.0)
    assert dear.counts == {"a": 2, "b": 3, "c": 3}


def test_widths_in_other_proportions(make_lossy: Make) -> None:
    curves = [make_lossy(name, [0.0] * 11) for name in ("a", "b")]
    assert in_proportion(curves, {"a": 1.0, "b": 3.0}, units, 8.0).counts == {"a": 2, "b": 6}
    assert in_proportion(curves, {"a": 1.0, "b": 3.0}, units, 15.0).counts == {"a": 5, "b": 10}
    assert in_proportion(curves, {"a": 0.0, "b": 3.0}, units, 15.0).counts == {"a": 1, "b": 10}
    assert in_proportion(curves, {"a": 1.0, "b": 3.0}, units, 12.0, round_to=4).counts == {"a": 4, "b": 8}


def test_a_target_out_of_reach_or_without_sense(make_lossy: Make) -> None:
    curves = [make_lossy("a", [0.0] * 5), make_lossy("b", [0.0] * 5, minimum=2)]
    with pytest.raises(TargetError, match="smallest widths cost 3"):
        affordable_uniform(curves, units, 2.0)
    with pytest.raises(OptionError, match="NaN"):
        affordable_uniform(curves, units, float("nan"))
    with pytest.raises(OptionError, match="multiples"):
        affordable_uniform(curves, units, 4.0, round_to=0)
