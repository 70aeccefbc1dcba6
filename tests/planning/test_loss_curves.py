"""A curve for every group: units that nobody reads come last and cost nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from onnx_subprune.planning.loss_curves import rank_groups
from onnx_subprune.planning.study import Study


def test_units_that_nobody_reads_come_last_and_lose_nothing(small_study: Study) -> None:
    first = small_study.curves[0]
    assert (first.group, first.size) == ("first", 8)
    assert set(first.order[-2:].tolist()) == {2, 6}
    assert first.loss is not None
    assert first.loss[6] == pytest.approx(0.0, abs=1e-9 * first.loss[0])
    assert first.loss[5] > 1e-3 * first.loss[0]
    assert first.share[6] == pytest.approx(1.0)


def test_groups_are_ranked_in_their_order_and_progress_is_told(study_with: Callable[..., Study]) -> None:
    study = study_with(round_to=4, select="random")
    steps: list[tuple[int, int | None]] = []
    groups = study.analysis.structure.prunable
    assert study.statistics is not None
    curves = rank_groups(
        study.analysis, groups, study.statistics, study.options, progress=lambda *step: steps.append(step)
    )
    assert [curve.group for curve in curves] == [group.name for group in groups]
    assert [curve.round_to for curve in curves] == [4, 4]
    assert steps == [(0, 2), (1, 2), (2, 2)]


def test_every_group_has_a_seed_of_its_own(study_with: Callable[..., Study]) -> None:
    study = study_with(select="random")
    assert study.statistics is not None
    twice = [study.analysis.structure.prunable[0]] * 2
    first, second = rank_groups(study.analysis, twice, study.statistics, study.options)
    again, _ = rank_groups(study.analysis, twice, study.statistics, study.options)
    assert not np.array_equal(first.order, second.order)
    assert np.array_equal(first.order, again.order)
