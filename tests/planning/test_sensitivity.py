"""Losses get the scale of the errors that were measured at the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.planning import sensitivity
from onnx_subprune.planning.allocation import make_plan
from onnx_subprune.planning.sensitivity import measure_losses
from onnx_subprune.planning.study import Study
from onnx_subprune.recovery import by_channel, recover


def test_a_loss_is_the_error_with_the_group_alone_pruned(study_with: Callable[..., Study]) -> None:
    study = study_with(allocation="measured", levels=(0.5,))
    measured = measure_losses(study)
    assert study.distance is not None
    for before, after in zip(study.curves, measured.curves, strict=True):
        width = round(0.5 * before.size)
        alone = replace(study, options=by_channel(study.options))
        error = study.distance(recover(alone, make_plan(study, {before.group: width})).model, study.options.probes)
        assert before.loss is not None
        assert after.loss is not None
        assert after.loss[width] == pytest.approx(error)
        # At one point the whole curve is scaled.
        assert after.loss[1] / before.loss[1] == pytest.approx(error / before.loss[width])


def test_a_group_that_cannot_go_keeps_a_unit_and_progress_is_told(study_with: Callable[..., Study]) -> None:
    """The network is a chain: without any unit of a group nothing would be left of its inputs."""
    steps: list[tuple[str, int, int | None]] = []
    study = replace(study_with(allocation="measured"), progress=lambda *step: steps.append(step))
    removable = {group.name for group in study.analysis.structure.removable}
    for curve in measure_losses(study).curves:
        assert curve.minimum == (0 if curve.group in removable else 1)
    assert [step for step in steps if step[0] == "measuring sensitivities"][-1] == ("measuring sensitivities", 4, 4)


def test_other_allocations_are_not_measured(study_with: Callable[..., Study]) -> None:
    study = study_with(allocation="loss")
    assert measure_losses(study) is study


def test_statistics_alone_cannot_be_run(study_with: Callable[..., Study]) -> None:
    study = replace(study_with(allocation="measured"), dataset=None, distance=None)
    with pytest.raises(OptionError, match="allocation 'measured' runs samples; give --calib"):
        measure_losses(study)


def test_of_too_many_groups_neighbours_share_an_error(
    study_with: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity, "_MOST_PROBED", 1)
    study = study_with(allocation="measured", levels=(0.5,))
    measured = measure_losses(study)
    assert study.distance is not None
    widths = {curve.group: round(0.5 * curve.size) for curve in study.curves}
    alone = replace(study, options=by_channel(study.options))
    error = study.distance(recover(alone, make_plan(study, widths)).model, study.options.probes)
    shares = []
    for before, after in zip(study.curves, measured.curves, strict=True):
        assert before.loss is not None
        assert after.loss is not None
        width = widths[before.group]
        shares.append(after.loss[width])
        assert after.loss[width] / before.loss[width] == pytest.approx(
            error / sum(c.loss[widths[c.group]] for c in study.curves if c.loss is not None)
        )
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(error)
