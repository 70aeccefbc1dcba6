"""Hidden units and inputs of recurrent layers that others can stand in for: the recovery restores the outputs."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.network.analysis import analyse
from onnx_subprune.subspace import fit_corrections, recover

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
KEPT, SIZE, INPUTS = 5, 8, 6
RNG = np.random.default_rng(11)
COPIES = np.eye(KEPT)[[0, 3, 3]]


def mixed(mix: np.ndarray, gates: int, *rest: int) -> np.ndarray:
    """[gates * SIZE, ...]: in each gate the last units are mixtures of its first."""
    first = RNG.standard_normal((gates, KEPT, *rest)) / 2
    return np.concatenate([first, np.einsum("rk,gk...->gr...", mix, first)], axis=1).reshape(-1, *rest)


def layer(op: str, directions: int = 1, mix: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """W, R, B of a layer whose last units follow its first, another way in each direction, and P and states."""
    gates, made = GATES[op], []
    for _ in range(directions):
        one = COPIES if mix is None else mix
        parts = {"W": mixed(one, gates, INPUTS), "R": mixed(one, gates, SIZE) / 2}
        made.append(parts | {"B": mixed(one, 2 * gates), "P": mixed(one, 3), "h0": mixed(one, 1)[None]})
    return {name: np.stack([part[name] for part in made]).astype(np.float32) for name in made[0]}


def model_of(net, op, attributes="", inputs="x, W, R, B", directions=1, weights=None):
    body = f"[layer] Y, H = {op} <hidden_size={SIZE}{attributes}> ({inputs})"
    known = layer(op, directions) if weights is None else weights
    return net(
        f"""g (float[4,3,{INPUTS}] x) => (float[a,b,c] y) {{
            {body}
            [t] t = Transpose <perm=[0,2,1,3]> (Y)
            [s] r = Reshape(t, k)
            [out] y = MatMul(r, w2)
        }}""",
        w2=(directions * SIZE, 4), k=np.int64([0, 0, -1]),
        **{name: value for name, value in known.items() if name in inputs.replace(",", "").split()},
    )  # fmt: skip


TWINS = {"layer": range(KEPT)}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("inputs", ["x, W, R, B", "x, W, R"])
def test_twins(net, exact, op, inputs):
    exact(model_of(net, op, inputs=inputs), TWINS)


@pytest.mark.parametrize("op", GATES)
def test_twins_in_both_directions(net, exact, op):
    exact(model_of(net, op, ', direction="bidirectional"', directions=2), TWINS)


def test_twins_of_a_gru_that_resets_last(net, exact):
    exact(model_of(net, "GRU", ", linear_before_reset=1"), TWINS)


def test_twins_with_peepholes_and_a_first_state(net, exact):
    weights = layer("LSTM")
    weights["h0"] = np.repeat(weights["h0"], 3, axis=1)
    exact(model_of(net, "LSTM", inputs="x, W, R, B, , h0, h0, P", weights=weights), TWINS)


@pytest.mark.parametrize("directions", [1, 2])
def test_mixtures_in_a_linear_recurrence(net, exact, directions):
    """Without a bias, states of zeros included: each direction's R is corrected by maps of its own."""
    mix = RNG.standard_normal((directions, SIZE - KEPT, KEPT)) / 2
    each = [layer("RNN", mix=one) for one in mix]
    weights = {name: np.concatenate([one[name] for one in each]) / 2 for name in each[0]}
    several = ",".join(['"Affine"'] * directions)
    attributes = f", activations=[{several}], activation_alpha=[{','.join(['1.0'] * directions)}]"
    attributes += ', direction="bidirectional"' if directions == 2 else ""
    exact(model_of(net, "RNN", attributes, "x, W, R", directions, weights), TWINS)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("inputs", ["h, W, R, B", "h, W, R"])
def test_inputs_that_are_mixtures_and_shifted(net, exact, op, inputs):
    """The shift goes into the first half of B."""
    weights = layer(op)
    first = RNG.standard_normal((4, KEPT))
    mix = RNG.standard_normal((KEPT, SIZE - KEPT))
    weights["W"] = (RNG.standard_normal((1, GATES[op] * SIZE, SIZE)) / 3).astype(np.float32)
    model = net(
        f"""g (float[4,3,4] x) => (float[a,b,c] y) {{
            [in] m = MatMul(x, w1)
            [add] h = Add(m, b1)
            [layer] Y, H = {op} <hidden_size={SIZE}> ({inputs})
            [s] r = Squeeze(Y, one)
            [out] y = MatMul(r, w2)
        }}""",
        w1=np.float32(np.concatenate([first, first @ mix], axis=1)), b1=np.float32(np.arange(SIZE) / 4 - 1),
        one=np.int64([1]), w2=(SIZE, 4), **{k: v for k, v in weights.items() if k in inputs.replace(",", "").split()},
    )  # fmt: skip
    exact(model, {"in": range(KEPT)})


@pytest.mark.parametrize("op", ["LSTM", "RNN"])
def test_constant_states_go_into_the_bias(net, exact, op):
    """Units that see nothing and start where they stay: a constant goes into the second half of B."""
    weights = layer(op)
    for name in ("W", "R"):
        view = weights[name].reshape(GATES[op], SIZE, -1)
        view[:, KEPT:] = 0
    bias = weights["B"].reshape(2, GATES[op], SIZE)
    bias[:, :, KEPT:] = 0
    bias[0, -1, KEPT:] = [0.7, -0.4, 0.9]
    weights["h0"] = np.zeros((1, 3, SIZE), np.float32)
    weights["h0"][:, :, KEPT:] = np.tanh(bias[0, -1, KEPT:])
    if op == "LSTM":
        # Output and input gates open (a large bias), forget gate shut: c = tanh(b), h = tanh(c).
        bias[0, 0, KEPT:] = bias[0, 1, KEPT:] = 40
        bias[0, 2, KEPT:] = -40
        weights["h0"][:, :, KEPT:] = np.tanh(weights["h0"][:, :, KEPT:])
    exact(model_of(net, op, inputs="x, W, R, B, , h0", weights=weights), TWINS)


@pytest.mark.parametrize("first", [False, True])
def test_a_first_state_of_zeros_counts_as_a_position(net, first):
    """Of four steps one reads zeros: the sums stay and the count grows by a third."""
    weights = layer("RNN")
    weights["h0"] = np.repeat(weights["h0"], 3, axis=1)
    inputs = "x, W, R, B, , h0" if first else "x, W, R, B"
    structure = analyse(model_of(net, "RNN", inputs=inputs, weights=weights)).structure
    (group,) = (group for group in structure.prunable if group.name == "layer")
    states = RNG.standard_normal((60, SIZE)) @ RNG.standard_normal((SIZE, SIZE)) + 2
    states = np.concatenate([states, np.ones((60, 1))], axis=1)
    gram = (states.T @ states)[np.newaxis]
    mask = np.arange(SIZE) < KEPT
    fits, _ = fit_corrections(structure, {group.atom: mask}, dict.fromkeys(structure.consumers, gram), 0.0)
    found = {fit.consumers[0].name: fit.solve().intercepts[0] for fit in fits}
    read = gram[0] + np.diag([0.0] * SIZE + [0 if first else 60 / 3])
    np.testing.assert_allclose(found["layer (recurrence)"], recover(read, mask).intercept, rtol=1e-9)
    np.testing.assert_allclose(found["out"], recover(gram[0], mask).intercept, rtol=1e-9)
