from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from onnx_subprune.evaluate.intervals import FEWEST, median_interval


def test_the_ranks_are_those_of_the_tables():
    # Conover's table of the binomial: of 10 values the 2nd smallest and 2nd largest, of 20 the 6th, of 100 the 40th.
    for count, rank in ((6, 1), (10, 2), (20, 6), (100, 40)):
        values = np.arange(1, count + 1)[::-1]
        assert median_interval(values) == (rank, count + 1 - rank)


def test_too_few_values_give_none():
    assert median_interval(np.arange(FEWEST)) is not None
    assert median_interval(np.arange(FEWEST - 1)) is None
    assert median_interval(np.array([])) is None


@pytest.mark.parametrize("count", [7, 25, 101])
@pytest.mark.parametrize("draw", ["normal", "pareto"])
def test_it_holds_the_median_as_often_as_it_says(count: int, draw: str):
    rng = np.random.default_rng(count)
    median = 0.0 if draw == "normal" else stats.pareto.median(1.0)
    samples = rng.standard_normal((4000, count)) if draw == "normal" else rng.pareto(1.0, (4000, count)) + 1
    held = [low <= median <= high for low, high in (median_interval(row) or (0, 0) for row in samples)]
    assert 0.94 < np.mean(held) < 0.995


def test_more_confidence_is_wider():
    values = np.arange(50)
    low, high = median_interval(values, 0.99) or (0, 0)
    narrow = median_interval(values, 0.8) or (0, 0)
    assert low < narrow[0] <= narrow[1] < high
