"""LSTM, GRU and RNN lose hidden units and inputs; held to the mask oracle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune.model import measure_cost, to_graph
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.rewrite import references
from onnx_subprune.plan import Plan
from onnx_subprune.structure import infer

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
HIDDEN, INPUTS = 6, 8


def weights(op: str, directions: int = 1, hidden: int = HIDDEN, inputs: int = INPUTS, stem: str = "") -> dict:
    """W, R and B of a layer, and the P of an LSTM."""
    rng = np.random.default_rng(len(stem) + 5)
    rows = GATES[op] * hidden
    shapes = {"W": (rows, inputs), "R": (rows, hidden), "B": (2 * rows,), "P": (3 * hidden,)}
    return {
        f"{stem}{name}": (rng.standard_normal((directions, *shape)) / 2).astype(np.float32)
        for name, shape in shapes.items()
        if name != "P" or op == "LSTM"
    }


def used(text: str, **given: object) -> dict[str, object]:
    """The weights that a text names."""
    words = {word.strip(",()") for word in text.replace("(", " ").split()}
    return {name: value for name, value in given.items() if name in words}


@pytest.fixture
def layer(net: Callable[..., onnx.ModelProto]) -> Callable[..., onnx.ModelProto]:
    """`layer(op, attributes, inputs, text, **weights)`: MatMul in -> layer -> `text`, which makes r -> MatMul out."""

    def build(
        op: str,
        attributes: str = "",
        inputs: str = "h, W, R, B",
        text: str = "[s] r = Squeeze(Y, one)",
        outputs: str = "Y, H",
        directions: int = 1,
        width: int | None = None,
        opset: int = 17,
        more: str = "",
        before: str = "",
        **given: object,
    ) -> onnx.ModelProto:
        attributes = f"hidden_size={HIDDEN}{attributes}"
        body = f"{before}\n[layer] {outputs} = {op} <{attributes}> ({inputs})\n{text}"
        known = {**weights(op, directions), "one": np.int64([1]), **given}
        return net(
            f"""g (float[4,3,5] x{more}) => (float[a,b,c] y) {{
                [in] h = MatMul(x, w1)
                {body}
                [out] y = MatMul(r, w2)
            }}""",
            opset=opset, w1=(5, INPUTS), w2=(width or directions * HIDDEN, 4), **used(body, **known),
        )  # fmt: skip

    return build


BOTH_WAYS = "[t] t = Transpose <perm=[0,2,1,3]> (Y)\n[s] r = Reshape(t, k)"
JOINED = {"k": np.int64([0, 0, -1])}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("attributes", ["", ', direction="reverse"', ", clip=1.0"])
@pytest.mark.parametrize("inputs", ["h, W, R, B", "h, W, R"])
def test_units_and_inputs_go(layer, holds, op, attributes, inputs):
    holds(layer(op, attributes, inputs), {"in": INPUTS, "layer": HIDDEN})


@pytest.mark.parametrize("op", GATES)
def test_both_directions_lose_the_same_units(layer, holds, op):
    model = layer(op, ', direction="bidirectional"', text=BOTH_WAYS, directions=2, **JOINED)
    structure = holds(model, {"in": INPUTS, "layer": HIDDEN})
    (group,) = (group for group in structure.prunable if group.name == "layer")
    assert [(c.name, c.features.size, c.blocks.size) for c in group.consumers] == [
        ("layer (recurrence)", 2 * HIDDEN, 2), ("out", 2 * HIDDEN, 1),
    ]  # fmt: skip
    assert group.entries == 1


@pytest.mark.parametrize("before", [0, 1])
def test_a_gru_before_and_after_its_reset_gate(layer, holds, before):
    holds(layer("GRU", f", linear_before_reset={before}"), {"in": INPUTS, "layer": HIDDEN})


def test_activations_and_peepholes(layer, holds):
    attributes = ', activations=["HardSigmoid","Relu","Softsign"], input_forget=1'
    holds(layer("LSTM", attributes, "h, W, R, B, , , , P"), {"in": INPUTS, "layer": HIDDEN})


@pytest.mark.parametrize("op", ["LSTM", "RNN"])
def test_lengths_and_initial_states_that_are_stored(layer, holds, op):
    rng = np.random.default_rng(3)
    h0, c0 = (rng.standard_normal((1, 3, HIDDEN)).astype(np.float32) for _ in range(2))
    inputs = "h, W, R, B, lengths, h0" + (", c0" if op == "LSTM" else "")
    model = layer(op, "", inputs, lengths=np.int32([4, 2, 3]), h0=h0, c0=c0)
    holds(model, {"in": INPUTS, "layer": HIDDEN})


def test_an_initial_state_that_the_caller_gives_keeps_the_units(layer, refuses):
    model = layer("GRU", "", "h, W, R, B, , h0", more=f", float[1,3,{HIDDEN}] h0")
    refuses(model, {"layer": "axis 2 of graph input 'h0'"}, allowed=["in"])


def test_an_initial_state_made_by_a_layer_goes_along(layer, holds):
    before = "[m] m = ReduceMean <axes=[0], keepdims=0> (h)\n[p] p = MatMul(m, w3)\n[u] h0 = Unsqueeze(p, nil)"
    model = layer("LSTM", "", "h, W, R, B, , h0", before=before, w3=(INPUTS, HIDDEN), nil=np.int64([0]))
    holds(model, {"in": INPUTS, "p": HIDDEN})


def test_an_encoder_hands_its_states_to_a_decoder(net, holds):
    model = net(
        f"""g (float[4,3,5] x, float[2,3,5] t) => (float[a,b,c] y) {{
            [enc] Y, H, C = LSTM <hidden_size={HIDDEN}> (x, eW, eR, eB)
            [dec] D, E = LSTM <hidden_size={HIDDEN}> (t, dW, dR, dB, , H, C)
            [s] r = Squeeze(D, one)
            [out] y = MatMul(r, w2)
        }}""",
        one=np.int64([1]), w2=(HIDDEN, 4),
        **{k: v for s in "ed" for k, v in weights("LSTM", inputs=5, stem=s).items() if k[1] != "P"},
    )  # fmt: skip
    structure = holds(model, {"enc": HIDDEN})
    assert [c.name for c in structure.prunable[0].consumers] == ["enc (recurrence)", "dec (recurrence)", "out"]


def test_a_decoder_that_reads_a_constant(net, holds):
    model = net(
        """g (float[2,10] x) => (float[a,b,c] y) {
            [e] e = MatMul(x, we)
            h = Unsqueeze(e, first)
            [l] s, last = GRU <hidden_size=5> (start, W, R, , , h)
            t = Squeeze(s, second)
            [out] y = MatMul(t, wo)
        }""",
        we=(10, 5), start=(7, 2, 4), W=(1, 15, 4), R=(1, 15, 5), wo=(5, 3), first=np.array([0]), second=np.array([1]),
    )  # fmt: skip
    holds(model, {"e": 5})


def test_zero_states_written_out_do_not_tie_layers(net, holds):
    model = net(
        f"""g (float[s,n,5] x) => (float[a,b,c] y) {{
            [sh] shape = Shape(x)
            [ga] n1 = Gather(shape, i)
            [co] k = Concat <axis=0> (a, n1, b)
            [cs] z = ConstantOfShape(k)
            [l1] Y, H, C = LSTM <hidden_size={HIDDEN}> (x, aW, aR, aB, , z, z)
            [s1] h = Squeeze(Y, one)
            [l2] Z, I, D = LSTM <hidden_size={HIDDEN}> (h, bbW, bbR, bbB, , z, z)
            [s2] r = Squeeze(Z, one)
            [out] y = MatMul(r, w2)
        }}""",
        i=np.int64([1]), a=np.int64([1]), b=np.int64([HIDDEN]), one=np.int64([1]), w2=(HIDDEN, 4),
        **{k: v for k, v in weights("LSTM", inputs=5, stem="a").items() if k != "aP"},
        **{k: v for k, v in weights("LSTM", inputs=HIDDEN, stem="bb").items() if k != "bbP"},
    )  # fmt: skip
    holds(model, {"l1": HIDDEN, "l2": HIDDEN}, {"x": (4, 3, 5)})


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ("Y", "[g] q = Gather <axis=0> (Y, last)\n[s] r = Squeeze(q, nil)\n"),
        ("Y, H", "[s] r = Identity(H)"),
        (", H", "[s] r = Identity(H)"),
        (", , C", "[s] r = Tanh(C)"),
        ("Y, H, C", "[s] r = Concat <axis=2> (H, C)"),
        ("Y, H", "[a] t = Transpose <perm=[1,0,2]> (H)\n[s] r = Reshape(t, flat)"),
    ],
)
def test_what_is_read_of_a_layer(layer, holds, outputs, text, plan_at_random):
    width = 2 * HIDDEN if "Concat" in text else HIDDEN
    given = {"last": np.int64([-1]), "nil": np.int64([0]), "flat": np.int64([1, 3, -1])}
    model = layer("LSTM", "", text=text, outputs=outputs, width=width, **given)
    holds(model, {"in": INPUTS, "layer": HIDDEN})
    # An output that the model did not have is not there afterwards either.
    analysis = analyse(model)
    shrunk, _ = references(analysis, plan_at_random(analysis))
    (node,) = (node for node in shrunk.graph.node if node.name == "layer")
    assert bool(node.output[0]) == outputs.startswith("Y")


@pytest.mark.parametrize("op", GATES)
def test_states_that_leave_the_graph_keep_the_units(net, refuses, op):
    model = net(
        f"""g (float[4,3,5] x) => (float[a,b,c,d] Y) {{
            [in] h = MatMul(x, w1)
            [layer] Y = {op} <hidden_size={HIDDEN}> (h, W, R, B)
        }}""",
        w1=(5, INPUTS), **{k: v for k, v in weights(op).items() if k != "P"},
    )  # fmt: skip
    refuses(model, {"layer": "graph output 'Y'"}, allowed=["in"])


def test_computed_weights_are_refused(layer, refuses):
    model = layer("GRU", "", "h, W, R, B", more=f", float[1,18,{INPUTS}] V")
    node = next(n for n in model.graph.node if n.name == "layer")
    node.input[1] = "V"
    refuses(model, {"in": "GRU 'layer' has weights that are computed"})


@pytest.mark.parametrize("directions", [1, 2])
def test_batch_first(net, directions, plan_at_random):
    """The runtime has no kernel for layout=1: the weights are held against those of layout=0, checked elsewhere."""
    direction = ', direction="bidirectional"' if directions == 2 else ""
    texts = {
        0: f"[layer] Y, H = GRU <hidden_size={HIDDEN}{direction}> (h, W, R, B)\n[t] t = Transpose <perm=[0,2,1,3]> (Y)",
        1: f"[layer] t, H = GRU <hidden_size={HIDDEN}{direction}, layout=1> (h, W, R, B)",
    }
    shrunk = {}
    for layout, text in texts.items():
        model = net(
            f"""g (float[4,4,5] x) => (float[a,b,c] y) {{
                [in] h = MatMul(x, w1)
                {text}
                [s] r = Reshape(t, k)
                [out] y = MatMul(r, w2)
            }}""",
            w1=(5, INPUTS), w2=(directions * HIDDEN, 4), k=np.int64([0, 0, -1]), **weights("GRU", directions),
        )  # fmt: skip
        analysis = analyse(model)
        plan: Plan = plan_at_random(analysis)
        assert [group.name for group in plan.groups] == ["in", "layer"]
        shrunk[layout] = references(analysis, plan)[0]
        onnx.checker.check_model(shrunk[layout], full_check=True)
    first, second = ({t.name: onnx.numpy_helper.to_array(t) for t in m.graph.initializer} for m in shrunk.values())
    assert first["W"].shape == (directions, 3 * HIDDEN // 2, INPUTS // 2)
    for name in ("w1", "W", "R", "B", "w2"):
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("directions", [1, 2])
def test_macs_and_parameters_follow(layer, op, directions, plan_at_random):
    direction = ', direction="bidirectional"' if directions == 2 else ""
    model = layer(op, direction, text=BOTH_WAYS, directions=directions, **JOINED)
    analysis = analyse(model)
    structure, cost = analysis.structure, measure_cost(model, analysis.input_shapes)
    assert (structure.macs({}), structure.parameters({})) == (cost.macs, cost.parameters)
    rows = directions * GATES[op] * HIDDEN
    assert cost.macs == 12 * (5 * INPUTS + rows * (INPUTS + HIDDEN) + directions * HIDDEN * 4)
    plan = plan_at_random(analysis)
    shrunk, _ = references(analysis, plan)
    counts = {group.atom: group.size // 2 for group in structure.prunable}
    pruned = measure_cost(shrunk, analysis.input_shapes)
    assert (structure.macs(counts), structure.parameters(counts)) == (pruned.macs, pruned.parameters)


@pytest.mark.parametrize("op", GATES)
def test_a_bias_that_is_handed_on_is_the_stored_one(op):
    """Constants behind an Identity are folded before; where they are not, the bias is tied to its other uses."""
    known = weights(op)
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[4,3,{INPUTS}] x) => (float[a,b,c,d] Y) {{
        [i] k = Identity(B)
        [layer] Y = {op} <hidden_size={HIDDEN}> (x, W, R, k)
    }}"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(known[name], name) for name in "WRB")
    structure = infer(to_graph(model), {"x": (4, 3, INPUTS)})
    assert {use.constant.name for use in structure.records.uses if use.role == "carrier"} == {"B"}
    assert structure.records.tied["B"][1][1].size == 2 * GATES[op] * HIDDEN
    made = [group for group in structure.groups if group.size == HIDDEN]
    assert len(made) == 1
    assert "B" in {use.constant.name for use in made[0].carriers}
