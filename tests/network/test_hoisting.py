"""Which branches can stand in the main graph, and the versions of a network that take one branch every time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_subprune.model import open_session, run, to_graph
from onnx_subprune.network.hoisting import (
    Hoisted,
    branch_inputs,
    fails_where_not_taken,
    hoist,
    still_hoisted,
    sunk,
    taken_branches,
)
from onnx_subprune.network.normalise import normalise

FINE = "h = MatMul(x, w)  r = Relu(h)  a = MatMul(r, w)"
BODIES = {
    "runs": FINE,
    "does not run": "s = Reshape(x, three)  r = Relu(s)  m = MatMul(r, t)  a = Reshape(m, four)",
    "infinite": f"z = Log(zero)  n = Add(x, z)  {FINE.replace('MatMul(x', 'MatMul(n')}",
}
SAMPLE = {"c": np.array(False), "x": np.ones((2, 4), np.float32)}


def build(body: str = FINE) -> onnx.ModelProto:
    model = parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
    g (bool c, float[n,4] x) => (float[p,q] y) {{
        y = If(c) <
            then_branch = u () => (float[n,4] a) {{ {body} }},
            else_branch = e () => (float[n,4] b) {{ k = MatMul(x, w)  b = Tanh(k) }}>
    }}""")
    stored = {
        "w": np.eye(4, dtype=np.float32),
        "t": np.eye(3, dtype=np.float32),
        "zero": np.zeros(1, np.float32),
        "three": np.array([-1, 3]),
        "four": np.array([-1, 4]),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in stored.items())
    return model


def hoisted(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Hoisted]:
    normalised = normalise(model, {"c": (), "x": (2, 4)}, trials=[SAMPLE])
    assert normalised.hoisted is not None
    return normalised.model, normalised.hoisted


@pytest.mark.parametrize(
    ("body", "left"), [("runs", None), ("does not run", "does not run"), ("infinite", "gives NaN or infinite values")]
)
def test_a_branch_is_hoisted_where_it_runs_on_the_trials(body, left):
    model = build(BODIES[body])
    made = hoist(to_graph(model), model, [SAMPLE])
    if left is None:
        assert not made.left
        assert made.ifs == ("y",)
    else:
        assert len(made.left) == 1
        assert "the then branch of If 'If_0'" in made.left[0]
        assert left in made.left[0]
        assert made.ifs == ()


def test_trials_on_which_the_network_itself_fails_say_nothing():
    model = build()
    assert not hoist(to_graph(model), model, [{**SAMPLE, "x": np.ones((2, 5), np.float32)}]).left


def test_every_version_takes_its_branch_and_there_are_none_without_branches():
    flat, made = hoisted(build())
    values = [run(open_session(version(flat)), SAMPLE)["y"] for version in taken_branches(made)]
    np.testing.assert_allclose(values[0], 1)
    np.testing.assert_allclose(values[1], np.tanh(1), atol=1e-6)
    assert taken_branches(None) == []
    assert taken_branches(still_hoisted(made, to_graph(made.whole))) == []


def test_inputs_for_either_branch_as_far_as_all_samples_run_with_them():
    flat, made = hoisted(build(FINE.replace("MatMul(x, w)", "MatMul(x, w)").replace("Relu(h)", "Reshape(h, four)")))
    assert len(branch_inputs(flat, made, lambda: [SAMPLE])) == 2
    odd = {**SAMPLE, "x": np.ones((2, 5), np.float32)}
    assert branch_inputs(flat, made, lambda: [SAMPLE, odd]) == []


def test_a_later_sample_shows_that_a_branch_fails():
    """Six entries are rows of three, eight are not."""
    model = build(BODIES["does not run"].replace("Reshape(m, four)", "Neg(m)"))
    trial = {**SAMPLE, "x": np.ones((3, 4), np.float32)}
    graph = to_graph(model)
    made = hoist(graph, model, [trial])
    assert made.ifs == ("y",)
    flat = normalise(model, {"c": (), "x": (3, 4)}, trials=[trial]).model
    assert fails_where_not_taken(flat, made, trial) is None
    assert "does not run" in str(fails_where_not_taken(flat, made, SAMPLE))


def test_a_sunk_network_is_the_one_before():
    flat, made = hoisted(build())
    back = sunk(flat, made)
    assert [node.op_type for node in back.graph.node] == ["If"]
    for flag in (True, False):
        feeds = {**SAMPLE, "c": np.array(flag)}
        np.testing.assert_array_equal(*(run(open_session(each), feeds)["y"] for each in (back, made.whole)))
