"""One step at a time: a layer is fitted, written into the pruned network, and the next one reads what it gives now."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.model import array_of, input_specs
from onnx_subprune.recovery.exact import paired_run
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import find_linears
from onnx_subprune.recovery.exact.paired_run import PairedRun
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.exact.steps import Step, steps_of
from onnx_subprune.recovery.exact.targets import Networks
from onnx_subprune.subspace.residual_ridge import Refined

TWO = """g (float[N,4] x) => (float[a,b] y) {
    [g1] h = Gemm(x, w1, b1)
    [g2] y = Gemm(h, w2, b2)
}"""
WEIGHTS = {"w1": (4, 4), "b1": (4,), "w2": (4, 3), "b2": (3,)}


def _damaged(model: onnx.ModelProto, *names: str, dtype: type = np.float32) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            noise = np.random.default_rng(len(tensor.name)).standard_normal(tuple(tensor.dims))
            values = (array_of(tensor) + 0.5 * noise).astype(dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return copy


def _begun(
    dense: onnx.ModelProto, pruned: onnx.ModelProto, count: int = 400, **given: object
) -> tuple[PairedRun, list[Step]]:
    settings = Settings(threads=1, **given)  # type: ignore[arg-type]
    surroundings = Surroundings(pruned, dense)
    steps = steps_of(pruned, find_linears(pruned)[0], surroundings, settings)
    x = np.random.default_rng(3).standard_normal((count, 4)).astype(np.float32)
    data = open_data({"x": x}, input_specs(dense))
    networks = Networks(dense, pruned, lambda name, value: value)
    return PairedRun(networks, surroundings, steps, data, settings), steps


def _weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: array_of(tensor) for tensor in model.graph.initializer}


def _fitted(run: PairedRun, step: Step) -> list[Refined]:
    fits = run.fit(step, np.random.default_rng(0))
    assert not isinstance(fits, str), fits
    return fits


def test_a_damaged_layer_is_repaired_and_written(net) -> None:
    dense = net(TWO, **WEIGHTS)
    pruned = _damaged(dense, "w1", "b1")
    run, steps = _begun(dense, pruned)
    with run:
        fits = _fitted(run, steps[0])
        assert fits[0].before > 1e-2
        assert fits[0].after < 1e-8
        assert run.write(steps[0], fits) == []
    for name in ("w1", "b1"):
        np.testing.assert_allclose(_weights(pruned)[name], _weights(dense)[name], atol=1e-4)


def test_the_next_layer_reads_what_the_fitted_one_gives(net) -> None:
    """As long as the first layer is wrong, the second makes up for it; once it is right there is nothing to do."""
    dense = net(TWO, **WEIGHTS)
    for write in (True, False):
        pruned = _damaged(dense, "w1", "b1")
        run, steps = _begun(dense, pruned)
        with run:
            fits = _fitted(run, steps[0])
            if write:
                run.write(steps[0], fits)
            second = _fitted(run, steps[1])
        assert (second[0].before < 1e-8) == write
        assert second[0].after < 1e-6


def test_in_one_pass_every_layer_reads_the_network_as_it_was_cut(net) -> None:
    dense = net(TWO, **WEIGHTS)
    pruned = _damaged(dense, "w2")
    run, steps = _begun(dense, pruned, sequential=False)
    with run:
        for step in steps:
            assert step.beside
            run.write(step, _fitted(run, step))
    np.testing.assert_allclose(_weights(pruned)["w2"], _weights(dense)["w2"], atol=1e-4)


def test_too_many_features_are_left(net) -> None:
    dense = net(TWO, **WEIGHTS)
    run, steps = _begun(dense, _damaged(dense, "w1"), max_features=3)
    with run:
        reason = run.fit(steps[0], np.random.default_rng(0))
    assert reason == "it reads 4 features at once, more than the 3 allowed"


def test_too_much_memory_is_not_asked_for(net, monkeypatch) -> None:
    monkeypatch.setattr(paired_run, "_MOST_BYTES", 100)
    dense = net(TWO, **WEIGHTS)
    run, steps = _begun(dense, _damaged(dense, "w1"))
    with run:
        reason = run.fit(steps[0], np.random.default_rng(0))
    assert reason == "its 4 outputs of 4 features are more than memory is given for"


def test_without_samples_held_out_all_are_fitted_on(net) -> None:
    dense = net(TWO, **WEIGHTS)
    pruned = _damaged(dense, "w1", "b1")
    run, steps = _begun(dense, pruned, count=40, held=0)
    with run:
        fits = _fitted(run, steps[0])
    assert fits[0].after < 1e-8


def test_one_sample_cannot_be_held_out(net) -> None:
    dense = net(TWO, **WEIGHTS)
    run, steps = _begun(dense, _damaged(dense, "w1"), count=1)
    with run:
        reason = run.fit(steps[0], np.random.default_rng(0))
    assert reason == "there are too few samples to hold some out"


def _layer(weight: np.ndarray, bias: np.ndarray, strength: float = 0.0) -> Refined:
    return Refined(weight[None], bias[None], strength, (1.0,), 1.0, 0.5)


@pytest.mark.parametrize("strength", [0.0, np.inf])
def test_a_layer_that_was_left_as_it_is_is_not_written(net, strength) -> None:
    dense = net(TWO, **WEIGHTS)
    pruned = _damaged(dense, "w1")
    before = _weights(pruned)
    run, steps = _begun(dense, pruned)
    with run:
        run.write(steps[0], [_layer(np.full((4, 4), 2.0), np.full(4, 3.0), strength)])
    after = _weights(pruned)
    if np.isinf(strength):
        np.testing.assert_array_equal(after["w1"], before["w1"])
        np.testing.assert_array_equal(after["b1"], before["b1"])
    else:
        np.testing.assert_array_equal(after["w1"], np.full((4, 4), 2.0))
        np.testing.assert_array_equal(after["b1"], np.full(4, 3.0))


def test_weights_that_half_precision_cannot_hold_are_refused(net) -> None:
    text = TWO.replace("float[", "float16[")
    weights = {name: np.ones(shape, np.float16) for name, shape in WEIGHTS.items()}
    dense = net(text, **weights)
    pruned = _damaged(dense, "w1", dtype=np.float16)
    before = _weights(pruned)
    settings = Settings(threads=1)
    surroundings = Surroundings(pruned, dense)
    steps = steps_of(pruned, find_linears(pruned)[0], surroundings, settings)
    x = np.ones((20, 4), np.float16)
    networks = Networks(dense, pruned, lambda name, value: value)
    with PairedRun(networks, surroundings, steps, open_data({"x": x}, input_specs(dense)), settings) as run:
        refused = run.write(steps[0], [_layer(np.full((4, 4), 1e6), np.zeros(4))])
    assert [linear.name for linear in refused] == ["g1"]
    np.testing.assert_array_equal(_weights(pruned)["w1"], before["w1"])


TWINS = """g (float[N,4] x) => (float[a,b] y, float[c,d] z) {
    [g1] y = Gemm(x, w, b)
    [r] r = Relu(x)
    [g2] z = Gemm(r, w, b)
}"""


def test_a_shared_weight_is_written_once(net) -> None:
    dense = net(TWINS, w=(4, 3), b=(3,))
    pruned = _damaged(dense, "w")
    run, (step,) = _begun(dense, pruned)
    with run:
        fits: Sequence[Refined] = _fitted(run, step)
        assert len(fits) == 2
        assert fits[0].weight is fits[1].weight
        run.write(step, fits)
    np.testing.assert_allclose(_weights(pruned)["w"], _weights(dense)["w"], atol=1e-4)
    np.testing.assert_allclose(_weights(pruned)["b"], _weights(dense)["b"], atol=1e-4)
