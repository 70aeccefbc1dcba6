"""Errors with one group pruned alone are those that surgery gives, and cost no surgery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from zoo import read_entries, read_skeleton, refill

from onnx_subprune.model import input_specs
from onnx_subprune.model.made_inputs import made_inputs
from onnx_subprune.network.calibrated import output_distance
from onnx_subprune.network.inputs import prepare, pruning_statistics
from onnx_subprune.options import Options
from onnx_subprune.planning import probes
from onnx_subprune.planning.allocation import make_plan
from onnx_subprune.planning.loss_curves import rank_groups
from onnx_subprune.planning.probes import Point, Probes
from onnx_subprune.planning.study import Study
from onnx_subprune.recovery import by_channel, recover

ZOO = Path(__file__).resolve().parents[1] / "zoo"
# Fused attention, recurrent layers, and constants that are nodes; the others have many groups.
DAILY = ("bert_classic_ort17", "gru_classifier_ts17", "crnn_ts17")
SLOW = (
    "light_squeezenet",
    "shufflenet_v2_ts17",
    "seresnet_d_ts17",
    "open_nsfw",
    "mixture_of_experts_dynamo18",
    "lstm_tagger_ts17",
)


def by_surgery(study: Study, points: list[Point]) -> dict[Point, float]:
    assert study.distance is not None
    alone = replace(study, options=by_channel(study.options))
    networks = {point: recover(alone, make_plan(study, dict(point))).model for point in points}
    return {point: study.distance(model, study.options.probes) for point, model in networks.items()}


def study_of(model: onnx.ModelProto, data: Mapping[str, np.ndarray], **how: object) -> Study:
    options = Options.of_effort("balanced", threads=1, **how)
    analysis, dataset = prepare(model, data, options)
    statistics = pruning_statistics(analysis, dataset, options)
    curves = rank_groups(analysis, analysis.structure.prunable, statistics, options)
    distance = output_distance(analysis, dataset, options)
    return Study(analysis, statistics, dataset, options, distance, curves=tuple(curves))


def check(study: Study) -> Probes:
    """Check half of every group, and none of it where that is allowed; return what was run."""
    removable = {group.name for group in study.analysis.structure.removable}
    points: list[Point] = [((curve.group, curve.size // 2),) for curve in study.curves if curve.size > 1]
    points += [((curve.group, 0),) for curve in study.curves if curve.group in removable]
    points.append(tuple((curve.group, max(1, curve.size // 3)) for curve in study.curves))
    assert study.distance is not None
    run = Probes(replace(study, options=by_channel(study.options)), study.distance, points)
    errors = dict(run)
    assert {*errors, *run.left} == {*points}
    surgery = by_surgery(study, list(errors))
    for point, error in errors.items():
        assert error == pytest.approx(surgery[point], rel=2e-3, abs=1e-9), point
    return run


def test_errors_are_those_of_surgery(study_with: Callable[..., Study]) -> None:
    assert check(study_with()).left == []
    assert check(study_with(recovery="none")).left == []


def test_no_network_is_cut(study_with: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group opens one session for all of its widths."""
    study = study_with()
    assert study.distance is not None
    opened = []
    session = probes.Runtime.session
    monkeypatch.setattr(probes.Runtime, "session", lambda *args, **how: opened.append(args[1]) or session(*args, **how))
    points: list[Point] = [((curve.group, width),) for curve in study.curves for width in (1, 2, 3)]
    assert len(dict(Probes(study, study.distance, points))) == len(points)
    # Behind the second group the first layer does not run again.
    sizes = sorted(len(model.graph.node) for model in opened)
    assert len(sizes) == len(study.curves)
    assert sizes[0] < sizes[-1] < len(study.analysis.normalised.graph.node) + len(study.curves)


def test_a_sequence_is_left_to_surgery() -> None:
    """What no array holds cannot be handed over."""
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[N,6] x) => (float[N,3] y, float[N,6] z) {
        two = Constant <value_int = 0> ()
        s = SequenceConstruct(x, x)
        a = MatMul(x, w1)
        b = Relu(a)
        c = MatMul(b, w2)
        y = Neg(c)
        t = SequenceInsert(s, c, two)
        e = SequenceAt(t, two)
        p = MatMul(e, w3)
        z = Relu(p)
    }"""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(text)
    for name, shape in {"w1": (6, 8), "w2": (8, 3), "w3": (3, 6)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    study = study_of(model, {"x": rng.standard_normal((40, 6)).astype(np.float32)})
    run = check(study)
    (wide,) = (curve.group for curve in study.curves if curve.size == 8)
    assert all(dict(point).get(wide, 8) < 8 for point in run.left)
    assert ((wide, 4),) in run.left


def zoo_study(name: str) -> Study:
    entry = next(entry for entry in read_entries(ZOO / "zoo.json") if entry.name == name)
    model = refill(read_skeleton(ZOO / "skeletons" / f"{name}.onnx.xz"))
    batches = [made_inputs(input_specs(model), entry.shapes(0), number) for number in range(3)]
    return study_of(model, {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}, probes=2)


@pytest.mark.parametrize("name", [*DAILY, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_on_networks_of_many_kinds(name: str) -> None:
    check(zoo_study(name))


def test_what_is_known_leaves_other_errors_as_they_are() -> None:
    """A width that is known may need masks that the other one does not."""
    study = zoo_study("bert_classic_ort17")
    removable = {group.name for group in study.analysis.structure.removable}
    points: list[Point] = [((curve.group, 0),) for curve in study.curves if curve.group in removable]
    points += [((curve.group, curve.size // 2),) for curve in study.curves if curve.size > 1]
    alone = replace(study, options=replace(study.options, recovery="none"))
    assert alone.distance is not None
    every = dict(Probes(alone, alone.distance, points))
    known = {point for point in points if point[0][1] == 0}
    rest = dict(Probes(alone, alone.distance, points, known))
    assert rest == {point: error for point, error in every.items() if point not in known}
