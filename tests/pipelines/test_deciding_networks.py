"""Networks that decide, draw or saturate, as people deploy them: they are pruned, measured and verified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_subprune import Options, Target, prune
from onnx_subprune.calibration import open_data
from onnx_subprune.evaluate import fidelity
from onnx_subprune.evaluate.compared_runs import ReferenceNetwork
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.model import Runtime, input_specs, load_model, open_session, run
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import disagreement, rounding_of, verify
from onnx_subprune.result import Result

Pruned = Callable[..., Result]
NAMES = ("nms", "topk", "argmax_seg", "predicted_length", "random_noise")


@pytest.fixture(scope="session")
def cases(data_dir: Path) -> Path:
    """Return the folder of small files that stand for what people deploy, beside the real data."""
    folder = data_dir.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"CASES MISSING: expected them at {folder}; these tests did not run")
    return folder


@pytest.fixture
def pruned(cases: Path) -> Pruned:
    """Return what prunes a case by its name."""

    def prune_case(name: str, target: str = "macs=0.7", **options: object) -> Result:
        chosen = Options(Target.parse(target), threads=1, samples=32, rows=8, probes=4, **options)  # type: ignore[arg-type]
        return prune(cases / f"{name}.onnx", str(cases / f"{name}.npz"), chosen)

    return prune_case


@pytest.mark.parametrize("name", NAMES)
def test_it_is_pruned_measured_and_verified(name: str, pruned: Pruned) -> None:
    result = pruned(name)
    assert result.pruned.macs < 0.75 * result.dense.macs
    assert result.losses_at == "outputs"
    assert all(np.isfinite(curve.loss).all() for curve in result.curves if curve.loss is not None)


def test_tiny_probabilities_are_compared_before_they_saturate(pruned: Pruned) -> None:
    result = pruned("tiny_probability", "params=0.8", prune_normalised=True)
    assert result.pruned.parameters <= 0.8 * result.dense.parameters


@pytest.mark.parametrize("name", ["nms", "topk", "predicted_length"])
def test_a_network_equals_itself_moved_by_rounding(name: str, cases: Path) -> None:
    model = load_model(cases / f"{name}.onnx")
    data = open_data(str(cases / f"{name}.npz"), input_specs(model))
    feeds = dict(next(iter(data.batches(1))))
    assert rounding_of(model, feeds) < 1e-4


@pytest.mark.parametrize("name", ["nms", "topk", "argmax_seg"])
def test_a_structure_that_is_misread_is_still_found(
    name: str, cases: Path, plan_at_random: Callable[..., object]
) -> None:
    """The oracle must not become blind: a unit more or less than the plan says shows at the points."""
    analysis = analyse(cases / f"{name}.onnx")
    feeds = dict(next(iter(open_data(str(cases / f"{name}.npz"), input_specs(analysis.model)).batches(1))))
    plan, other = (plan_at_random(analysis, 0.7, seed) for seed in (0, 1))
    shrunk, masked = references(analysis, plan)  # type: ignore[arg-type]
    _, wrongly_masked = references(analysis, other)  # type: ignore[arg-type]
    assert disagreement(shrunk, masked, feeds) < 1e-4
    assert disagreement(shrunk, wrongly_masked, feeds) > 1e-2


def test_the_error_grows_with_the_damage(cases: Path) -> None:
    model = load_model(cases / "nms.onnx")
    data = open_data(str(cases / "nms.npz"), input_specs(model))
    distance = OutputDistance(model, data, Runtime(threads=1, batch_size=1), 4)
    errors = [distance(_noisy(model, scale)) for scale in (0.0, 1e-4, 1e-2, 1e-1)]
    assert errors[0] == 0.0
    assert errors == sorted(errors)
    assert 0 < errors[1] < 1e-4
    assert np.isfinite(errors).all()


def _noisy(model: onnx.ModelProto, scale: float) -> onnx.ModelProto:
    """Return a network whose weights are off by so much of themselves."""
    noisy, rng = onnx.ModelProto(), np.random.default_rng(0)
    noisy.CopyFrom(model)
    for tensor in noisy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) > 1:
            values = onnx.numpy_helper.to_array(tensor)
            moved = (values * (1 + scale * rng.standard_normal(values.shape))).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
    return noisy


def test_the_file_keeps_its_own_draws(pruned: Pruned) -> None:
    result = pruned("random_noise")
    (noise,) = (node for node in result.model.graph.node if node.op_type == "RandomNormalLike")
    assert not any(attribute.name == "seed" for attribute in noise.attribute)
    again = pruned("random_noise")
    assert again.model.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


def test_lengths_of_its_own_are_no_fault(cases: Path) -> None:
    """The pruned network predicts another length; given the dense one's, it answers alike."""
    model = load_model(cases / "predicted_length.onnx")
    feeds = dict(next(iter(open_data(str(cases / "predicted_length.npz"), input_specs(model)).batches(1))))
    longer = _noisy(model, 0.3)
    lengths = [run(open_session(network), feeds)["y"].shape[1] for network in (model, longer)]
    assert lengths[0] != lengths[1]
    verify(longer, model, feeds)
    assert ReferenceNetwork(model).run(feeds).values["y"].shape[1] == lengths[0]


KINDS = {
    "nms": ("boxes", {"boxes"}),
    # None of its boxes scores enough to be one.
    "topk": ("dets", {"relative_l2"}),
    "argmax_seg": ("classes", {"agreement", "iou"}),
    "predicted_length": ("y", {"relative_l2"}),
    "random_noise": ("y", {"relative_l2", "agreement"}),
}


@pytest.mark.parametrize("name", NAMES)
def test_its_fidelity_says_what_people_want_to_know(name: str, pruned: Pruned, cases: Path) -> None:
    dense, result = load_model(cases / f"{name}.onnx"), pruned(name)
    data = open_data(str(cases / f"{name}.npz"), input_specs(dense))
    same, other = (fidelity(dense, model, data, threads=1) for model in (dense, result.model))
    output, figures = KINDS[name]
    assert all(getattr(other.outputs[output], figure) is not None for figure in figures)
    assert 0 < other.relative_l2 < np.inf
    for entry in same.compared.values():
        assert entry.relative_l2 in (None, 0.0)
        assert {entry.agreement, entry.iou, entry.boxes, entry.texts} <= {None, 1.0}
        assert entry.lengths is None
