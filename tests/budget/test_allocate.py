from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.budget import Curve, cheapest_cutoff, drop_branches, uniform, variance
from onnx_subprune.errors import OptionError, TargetError


def curve(group: str, gains: list[float], **options: int) -> Curve:
    share = np.concatenate([[0.0], np.cumsum(gains) / sum(gains)])
    share[-1] = 1.0
    return Curve(group, len(gains), np.arange(len(gains)), share, **options)


STEEP = curve("steep", [8, 1, 1, 0])
FLAT = curve("flat", [1, 1, 1, 1, 1])


def units(counts: dict[str, int]) -> float:
    return float(sum(counts.values()))


def test_uniform_rounds_half_up_and_keeps_one() -> None:
    assert uniform([STEEP, FLAT], 0.5) == {"steep": 2, "flat": 3}
    assert uniform([STEEP, FLAT], 0.01) == {"steep": 1, "flat": 1}
    assert uniform([STEEP, FLAT], 1.0) == {"steep": 4, "flat": 5}
    assert uniform([curve("g", [1] * 50)], 0.29) == {"g": 15}


def test_widths_round_up_to_multiples_within_the_size() -> None:
    assert uniform([curve("g", [1] * 20)], 0.3, round_to=8) == {"g": 8}
    assert uniform([curve("g", [1] * 20)], 0.45, round_to=8) == {"g": 16}
    assert uniform([curve("g", [1] * 20)], 0.9, round_to=8) == {"g": 20}
    assert uniform([curve("g", [1] * 20, round_to=3)], 0.1, round_to=2) == {"g": 6}
    assert uniform([curve("g", [1] * 20, minimum=5)], 0.1) == {"g": 5}
    assert uniform([curve("g", [1] * 20, minimum=5)], 0.1, round_to=4) == {"g": 8}


def test_variance_keeps_the_fewest_units_that_reach_the_cutoff() -> None:
    assert variance([STEEP, FLAT], 0.8) == {"steep": 1, "flat": 4}
    assert variance([STEEP, FLAT], 0.81) == {"steep": 2, "flat": 5}
    assert variance([STEEP, FLAT], 1e-9) == {"steep": 1, "flat": 1}
    assert variance([STEEP, FLAT], 0.9999) == {"steep": 3, "flat": 5}
    assert variance([STEEP, FLAT], 0.8, round_to=2) == {"steep": 2, "flat": 4}


def test_variance_of_one_keeps_even_dead_units() -> None:
    assert variance([STEEP, FLAT], 1.0) == {"steep": 4, "flat": 5}


def test_rounding_of_a_share_does_not_cost_a_unit() -> None:
    assert variance([curve("g", [0.1] * 10)], 0.3) == {"g": 3}  # 0.1 + 0.1 + 0.1 > 0.3


def test_groups_that_may_go_keep_nothing_of_nothing() -> None:
    free = curve("free", [1] * 20, minimum=0)
    assert uniform([free, FLAT], 0.0) == {"free": 0, "flat": 1}
    assert uniform([free, FLAT], 0.0, round_to=4) == {"free": 0, "flat": 4}
    with pytest.raises(OptionError, match=r"\(0, 1\]"):
        variance([free], 0.0)


@pytest.mark.parametrize("bad", [-0.5, 1.5, float("nan")])
def test_fractions_outside_their_range(bad: float) -> None:
    with pytest.raises(OptionError, match=r"\(0, 1\]"):
        uniform([FLAT], bad)
    with pytest.raises(OptionError, match=r"\(0, 1\]"):
        variance([FLAT], bad)


def test_round_to_must_be_positive() -> None:
    for call in (uniform, variance):
        with pytest.raises(OptionError, match="multiples"):
            call([FLAT], 0.5, 0)
    with pytest.raises(OptionError, match="multiples"):
        cheapest_cutoff([FLAT], units, 3, 0)


def test_cheapest_cutoff_meets_the_target() -> None:
    found = cheapest_cutoff([STEEP, FLAT], units, 5)
    assert found.counts == {"steep": 1, "flat": 4}
    assert found.cutoff == pytest.approx(0.8)
    assert found.cost == 5


def test_the_rest_is_spent_on_the_largest_gain() -> None:
    found = cheapest_cutoff([STEEP, FLAT], units, 6)  # the next cut-off, 0.9, would cost 2 + 5
    assert found.cutoff == pytest.approx(0.8)
    assert found.counts == {"steep": 1, "flat": 5}


def test_a_step_that_is_too_dear_leaves_the_others_theirs() -> None:
    dear = curve("dear", [1, 1])
    cheap = curve("cheap", [5, 4, 3, 2, 1])

    def cost(counts: dict[str, int]) -> float:
        return 100.0 * counts["dear"] + counts["cheap"]

    assert cheapest_cutoff([dear, cheap], cost, 104).counts == {"dear": 1, "cheap": 4}
    assert cheapest_cutoff([dear, cheap], cost, 199).counts == {"dear": 1, "cheap": 5}


def test_dead_units_are_not_given_back() -> None:
    dead = curve("dead", [1, 0, 0, 0])
    assert cheapest_cutoff([dead, FLAT], units, 8).counts == {"dead": 1, "flat": 5}
    assert cheapest_cutoff([dead, FLAT], units, 9) == cheapest_cutoff([dead, FLAT], units, 1e9)


def test_a_step_passes_over_units_that_add_nothing() -> None:
    gap = curve("gap", [2, 0, 0, 1])
    assert cheapest_cutoff([gap], units, 3).counts == {"gap": 1}
    assert cheapest_cutoff([gap], units, 4).counts == {"gap": 4}


def test_a_target_that_allows_everything_keeps_everything() -> None:
    found = cheapest_cutoff([STEEP, FLAT], units, 9)
    assert (found.counts, found.cutoff, found.cost) == ({"steep": 4, "flat": 5}, 1.0, 9.0)


def test_cost_targets_round_widths() -> None:
    wide = curve("wide", list(range(32, 0, -1)))
    found = cheapest_cutoff([wide, FLAT], units, 30, round_to=8)
    assert found.counts == {"wide": 24, "flat": 5}


def test_a_target_below_the_minimum_names_the_nearest() -> None:
    with pytest.raises(TargetError, match="smallest widths cost 4") as caught:
        cheapest_cutoff([STEEP, curve("f", [1, 1, 1, 1], minimum=3)], units, 3)
    assert caught.value.nearest == 4.0
    with pytest.raises(OptionError, match="NaN"):
        cheapest_cutoff([FLAT], units, float("nan"))


def test_groups_go_whole_only_where_the_smallest_widths_cost_too_much() -> None:
    found = drop_branches([STEEP, FLAT], units, 2, lambda _: True)
    assert found.counts == cheapest_cutoff([STEEP, FLAT], units, 2).counts


def test_the_group_whose_last_units_hold_least_goes_first() -> None:
    """At one unit each `steep` holds 8 / 10, `flat` 1 / 5 and `thin` 1 / 4 of the variance."""
    thin = curve("thin", [1, 1, 1, 1])
    found = drop_branches([STEEP, thin, FLAT], units, 2, lambda _: True)
    assert (found.counts, found.cost) == ({"steep": 1, "thin": 1, "flat": 0}, 2.0)
    found = drop_branches([STEEP, thin, FLAT], units, 2, lambda names: "flat" not in names)
    assert found.counts == {"steep": 1, "thin": 0, "flat": 1}
    assert drop_branches([STEEP, thin, FLAT], units, 0, lambda _: True).cost == 0.0


def test_what_a_branch_frees_is_spent_on_the_rest() -> None:
    costly = curve("costly", [1] * 8)

    def cost(counts: dict[str, int]) -> float:
        return 10.0 * counts.get("costly", 0) + counts.get("flat", 0)

    assert drop_branches([costly, FLAT], cost, 4, lambda _: True).counts == {"costly": 0, "flat": 4}


def test_groups_stay_whose_loss_saves_nothing() -> None:
    found = drop_branches([STEEP, FLAT], lambda counts: float(counts.get("steep", 0)), 0, lambda _: True)
    assert found.counts == {"flat": 5, "steep": 0}


def test_without_branches_to_drop_the_nearest_is_named() -> None:
    with pytest.raises(TargetError, match="cost 2") as caught:
        drop_branches([STEEP, FLAT], units, 1, lambda _: False)
    assert caught.value.nearest == 2.0


def test_no_groups_cost_what_they_cost() -> None:
    assert cheapest_cutoff([], units, 1).counts == {}


def test_cost_is_called_few_times() -> None:
    rng = np.random.default_rng(0)
    curves = [curve(f"g{i}", sorted(rng.random(300), reverse=True)) for i in range(20)]
    calls = 0

    def cost(counts: dict[str, int]) -> float:
        nonlocal calls
        calls += 1
        return sum((i + 1) * count for i, count in enumerate(counts.values()))

    found = cheapest_cutoff(curves, cost, 30001.5)
    assert found.cost <= 30001.5
    assert calls < 200
