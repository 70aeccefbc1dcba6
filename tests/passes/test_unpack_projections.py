"""Stacked projections are cut while they are flat; everything else stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.model import to_graph
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.options import Options, Target
from onnx_subprune.passes import UnpackProjections
from onnx_subprune.pipeline import prune

Build = Callable[..., onnx.ModelProto]
Same = Callable[..., None]
Oracle = Callable[..., Analysis]

HEADS, SIZE = 2, 4
ATTENTION = """[kt] kt = Transpose <perm=[0,1,3,2]> (k)
        [qk] s = MatMul(q, kt)
        [sm] a = Softmax <axis=3> (s)
        [av] o = MatMul(a, v)
        [back] t = Transpose <perm=[0,2,1,3]> (o)
        [merge] m = Reshape(t, flat)
        [out] y = MatMul(m, w2)"""
GATHERS = """[g0] q = Gather <axis=0> (p, n0)
        [g1] k = Gather <axis=0> (p, n1)
        [g2] v = Gather <axis=0> (p, n2)"""
STACK = "[r] r = Reshape(h, grid)\n[p] p = Transpose <perm=[2,0,3,1,4]> (r)"


def _ints(values: object) -> np.ndarray:
    return np.array(values, np.int64)


def attention(build: Build, text: str, grid: tuple[int, ...] = (0, 0, 3, 2, 4), **options: Any) -> onnx.ModelProto:
    """A projection `pj` to h [N, T, 24], `text` that makes q, k and v [N, 2, T, 4] of it, and attention."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.normal(size=(6, 24)), "b1": rng.normal(size=24), "w2": rng.normal(size=(8, 5)) / 2,
        "half": np.full((), 0.5), "flat": _ints([0, 0, -1]), "grid": _ints(grid), "five": _ints([5]),
        "n0": _ints(0), "n1": _ints(1), "n2": _ints(-1), "i0": _ints([0]), "i1": _ints([1]), "i2": _ints([2]),
        "i3": _ints([3]), "first": _ints([0]), "far": _ints([2**31 - 1]), "thirds": _ints([1, 1, 1]),
    }  # fmt: skip
    body = f"""g (float[N,T,6] x) => (float[N,T,5] y) {{
        [pj] j = MatMul(x, w1)
        [b] h = Add(j, b1)
        {text}
        {ATTENTION}
    }}"""
    used = {
        name: value.astype(np.float32) if value.dtype == np.float64 else value
        for name, value in arrays.items()
        if any(f"{before}{name}{after}" in body for before in "( " for after in ",)")
    }
    return build(body, **used, **options)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def unpacked(model: onnx.ModelProto) -> onnx.ModelProto:
    return analyse(model, {"x": (2, 3, 6)}).normalised


SPELLINGS = {
    "gather": f"{STACK}\n{GATHERS}",
    "split": f"{STACK}\n[s] a0, a1, a2 = Split <axis=0> (p)\n"
    + "\n".join(f"[q{i}] {name} = Squeeze(a{i}, i0)" for i, name in enumerate("qkv")),
    "slice": f"{STACK}\n[s0] a0 = Slice(p, i0, i1, i0)\n[s1] a1 = Slice(p, i1, i2, i0, i1)\n"
    "[s2] a2 = Slice(p, i2, far, i0)\n"
    + "\n".join(f"[q{i}] {name} = Squeeze(a{i}, i0)" for i, name in enumerate("qkv")),
    "mixed": f"{STACK}\n[s0] q = Gather <axis=0> (p, n0)\n[s1] a1 = Gather <axis=0> (p, i1)\n"
    "[s2] a2 = Slice(p, i2, i3, i0)\n[q1] k = Squeeze(a1, i0)\n[q2] v = Squeeze(a2, i0)",
    "twice": f"{STACK}\n{GATHERS.replace('v =', 'v0 =')}\n[g3] v1 = Gather <axis=0> (p, n2)\n[v] v = Add(v0, v1)",
    "torchvision": "[r] r = Reshape(h, flatgrid)\n[u] u = Unsqueeze(r, i0)\n[p] p = Transpose <perm=[3,1,2,0,4]> (u)\n"
    "[d] z = Squeeze(p, i3)\n"
    + "\n".join(
        f"[g{i}] {name}f = Gather <axis=0> (z, n{i})\n[{name}r] {name}g = Reshape({name}f, heads)\n"
        f"[tr{i}] {name} = Transpose <perm=[0,2,1,3]> ({name}g)"
        for i, name in enumerate("qkv")
    ),
}  # fmt: skip


@pytest.mark.parametrize("spelling", list(SPELLINGS))
def test_each_part_gets_channels_of_its_own(spelling: str, build: Build, same_outputs: Same, mask_oracle: Oracle):
    """Heads go together; query and key channels in pairs, value channels for themselves."""
    text = SPELLINGS[spelling]
    extra = {"flatgrid": _ints([0, 0, 3, 8]), "heads": _ints([0, 0, 2, 4])} if spelling == "torchvision" else {}
    model = attention(build, text, **extra)
    same_outputs(model, unpacked(model), rtol=1e-6, N=2, T=3)
    for seed, fraction in enumerate((0.5, 0.75, 0.01)):
        analysis = mask_oracle(model, {"x": (2, 3, 6)}, fraction=fraction, seed=seed, run_shapes={"x": (3, 5, 6)})
        groups = {group.name: group.size for group in analysis.structure.prunable}
        assert groups == {"pj": 2, "pj#2": 4, "pj#3": 4}
        assert [group.name for group in analysis.structure.frozen] == ["out"]
    parts = {group.name: group for group in analysis.structure.groups}
    assert [one.name for one in parts["pj#2"].contractions] == ["qk"]
    assert [one.name for one in parts["pj#3"].consumers] == ["out"]


def test_no_more_is_moved_than_before(build: Build):
    found = operators(unpacked(attention(build, SPELLINGS["gather"])))
    assert found[:2] == ["MatMul", "Add"]
    assert sorted(found[2:9]) == ["Reshape"] * 3 + ["Split"] + ["Transpose"] * 3
    found = operators(
        unpacked(attention(build, SPELLINGS["torchvision"], flatgrid=_ints([0, 0, 3, 8]), heads=_ints([0, 0, 2, 4])))
    )
    # Three parts of [N, T, 8] need no Reshape, and the Transposes of the stack cancel out.
    assert found[2:] == ["Split", *["Reshape", "Transpose"] * 3, "Transpose", "MatMul", "Softmax", "MatMul",
                         "Transpose", "Reshape", "MatMul"]  # fmt: skip


@pytest.mark.parametrize("opset", [7, 11, 13, 17])
def test_in_every_opset(opset: int, build: Build, same_outputs: Same, mask_oracle: Oracle):
    text = f"{STACK}\n[s] a0, a1, a2 = Split <axis=0> (p)\n[e] e = Mul(a0, half)\n"
    axes = "(NAME)" if opset < 13 else "(NAME, i0)"
    for i, name in enumerate("qkv"):
        squeeze = axes.replace("NAME", "e" if name == "q" else f"a{i}")
        attribute = "<axes=[0]>" if opset < 13 else ""
        text += f"[q{i}] {name} = Squeeze {attribute} {squeeze}\n"
    model = attention(build, text, opset=opset)
    after = unpacked(model)
    # What keeps the stacked axis, and is read by another than a Squeeze, gets it back as an axis of one entry.
    assert operators(after).count("Unsqueeze") == 1
    same_outputs(model, after, rtol=1e-6, N=2, T=3)
    analysis = mask_oracle(model, {"x": (2, 3, 6)})
    assert [group.size for group in analysis.structure.prunable] == [2, 4, 4]


@pytest.mark.parametrize("computed", [False, True])
def test_a_stack_within_each_head(computed: bool, build: Build, same_outputs: Same, mask_oracle: Oracle):
    """BLOOM and GPT-NeoX: heads x 3 x channels."""
    text = "[r] r = Reshape(h, grid)\n" if not computed else (
        "[sh] sh = Shape(x)\n[s2] s2 = Slice(sh, i0, i2)\n[tail] g = Concat <axis=0> (s2, rest)\n"
        "[r] r = Reshape(h, g)\n"
    )  # fmt: skip
    for i, name in enumerate("qkv"):
        text += f"[g{i}] {name}0 = Gather <axis=3> (r, n{i})\n[t{i}] {name} = Transpose <perm=[0,2,1,3]> ({name}0)\n"
    extra = {"rest": _ints([2, 3, 4])} if computed else {}
    model = attention(build, text, grid=(0, 0, 2, 3, -1), **extra)
    after = unpacked(model)
    same_outputs(model, after, rtol=1e-6, N=2, T=3)
    assert operators(after).count("Split") == 1
    for fraction in (0.5, 0.75):
        analysis = mask_oracle(model, {"x": (2, 3, 6)}, fraction=fraction, run_shapes={"x": (3, 5, 6)})
        assert [group.size for group in analysis.structure.prunable] == [2, 4, 4]


def test_a_computed_target(build: Build, same_outputs: Same, mask_oracle: Oracle):
    """TorchScript with dynamic sizes: batch, sequence and head size are read off the activation at run time."""
    text = f"""[sh] sh = Shape(h)
        [bt] bt = Gather <axis=0> (sh, pair)
        [c] c = Gather <axis=0> (sh, last)
        [d] d = Div(c, six)
        [tail] g = Concat <axis=0> (bt, three, two, d)
        {STACK.replace("grid", "g")}
        {GATHERS}"""
    model = attention(
        build, text, pair=_ints([0, 1]), last=_ints([2]), six=_ints([6]), three=_ints([3]), two=_ints([2])
    )
    same_outputs(model, unpacked(model), rtol=1e-6, N=2, T=3)
    analysis = mask_oracle(model, {"x": (2, 3, 6)}, run_shapes={"x": (3, 5, 6)})
    assert [group.size for group in analysis.structure.prunable] == [2, 4, 4]


def test_keys_and_values_of_another_source(build: Build, same_outputs: Same, mask_oracle: Oracle):
    rng = np.random.default_rng(0)
    model = build(
        f"""g (float[N,T,6] x, float[N,S,6] z) => (float[N,T,5] y) {{
        [pq] hq = MatMul(x, w0)
        [rq] rq = Reshape(hq, heads)
        [tq] q = Transpose <perm=[0,2,1,3]> (rq)
        [pkv] h = MatMul(z, w1)
        [r] r = Reshape(h, grid)
        [p] p = Transpose <perm=[2,0,3,1,4]> (r)
        [g1] k = Gather <axis=0> (p, n0)
        [g2] v = Gather <axis=0> (p, n1)
        {ATTENTION}
    }}""",
        w0=rng.normal(size=(6, 8)).astype(np.float32), w1=rng.normal(size=(6, 16)).astype(np.float32),
        w2=rng.normal(size=(8, 5)).astype(np.float32), heads=_ints([0, 0, 2, 4]), grid=_ints([0, 0, 2, 2, 4]),
        n0=_ints(0), n1=_ints(1), flat=_ints([0, 0, -1]),
    )  # fmt: skip
    shapes = {"x": (2, 3, 6), "z": (2, 5, 6)}
    same_outputs(model, analyse(model, shapes).normalised, rtol=1e-6, N=2, T=3, S=5)
    analysis = mask_oracle(model, shapes)
    assert {group.name: group.size for group in analysis.structure.prunable} == {"pq": 2, "pq#2": 4, "pkv": 4}


def test_channels_first(build: Build, same_outputs: Same, mask_oracle: Oracle):
    """The projection is a 1 x 1 convolution, and the flat axis is not the last."""
    rng = np.random.default_rng(0)
    model = build(
        """g (float[N,6,H,W] x) => (float[N,5,C] y) {
        [pj] h = Conv(x, w1)
        [r] r = Reshape(h, grid)
        [g0] q = Gather <axis=1> (r, n0)
        [g1] k = Gather <axis=1> (r, n1)
        [g2] v = Gather <axis=1> (r, n2)
        [kt] kt = Transpose <perm=[0,2,1]> (k)
        [qk] s = MatMul(kt, q)
        [sm] a = Softmax <axis=2> (s)
        [av] o = MatMul(v, a)
        [out] y = MatMul(w2, o)
    }""",
        w1=rng.normal(size=(12, 6, 1, 1)).astype(np.float32), w2=rng.normal(size=(5, 4)).astype(np.float32),
        grid=_ints([0, 3, 4, -1]), n0=_ints(0), n1=_ints(1), n2=_ints(2),
    )  # fmt: skip
    shapes = {"x": (2, 6, 3, 5)}
    same_outputs(model, analyse(model, shapes).normalised, rtol=1e-6, N=2, H=3, W=5)
    analysis = mask_oracle(model, shapes, run_shapes={"x": (3, 6, 4, 2)})
    assert {group.name: group.size for group in analysis.structure.prunable} == {"pj": 4, "pj#2": 4}


ALONE = {
    "a part that nobody picks": f"{STACK}\n" + GATHERS.replace("n2", "n1"),
    "two parts at once": f"{STACK}\n{GATHERS.rsplit('[g2]', 1)[0]}\n[s] s2 = Slice(p, i1, i3, i0)\n"
    "[rd] v1 = ReduceSum(s2, i0)\n[sq] v = Squeeze(v1, i0)",
    "another reader": f"{STACK}\n{GATHERS.replace('v =', 'v0 =')}\n[m] m0 = ReduceMax <keepdims=0> (p)\n"
    "[v] v = Add(v0, m0)",
    "computed positions": f"[sh] sh = Shape(x)\n[c] c = Slice(sh, i2, i3)\n[e] e = Div(c, far)\n"
    f"[f] f = Squeeze(e, i0)\n{STACK}\n{GATHERS.replace('n0', 'f')}",
    "a reader of the Reshape": f"{STACK}\n{GATHERS.replace('v =', 'v0 =')}\n[m] m0 = ReduceMax <keepdims=0> (r)\n"
    "[v] v = Add(v0, m0)",
    "no projection": STACK.replace("(h, grid)", "(z, grid)") + f"\n{GATHERS}",
}  # fmt: skip


@pytest.mark.parametrize("why", list(ALONE))
def test_what_is_left_alone(why: str, build: Build):
    text = ALONE[why]
    if why == "no projection":
        text = f"[cat] z = Concat <axis=2> (x, x, x, x)\n{text}\n[hd] hd = ReduceMax <keepdims=0> (h)"
        text = text.replace("[g2] v =", "[g2] v0 =") + "\n[va] v = Add(v0, hd)"
    model = attention(build, text)
    assert operators(unpacked(model)) == operators(model)


def test_a_reshape_of_axes_that_nobody_knows_is_left_alone(build: Build):
    """What an operator of another domain gives out has no rank; the target says what the Reshape makes of it."""
    text = f"[o] o1 = other.Opaque(h)\n[z] z = Cast <to=1> (o1)\n{STACK.replace('(h, grid)', '(z, grid)')}\n{GATHERS}"
    model = attention(build, text, grid=(0, -1, 3, 2, 4), domains=', "other" : 1')
    assert operators(unpacked(model)) == operators(model)


def test_a_stacked_axis_in_the_last_place_is_left_alone(build: Build):
    """Every third channel is a query: there is no cut that separates them."""
    text = "[r] r = Reshape(h, grid)\n[p] p = Transpose <perm=[4,0,2,1,3]> (r)\n" + GATHERS
    assert "Split" not in operators(unpacked(attention(build, text, grid=(0, 0, 2, 4, 3))))


def test_a_zero_that_would_move_is_left_alone(build: Build):
    """A zero of the target copies the size of the axis in its place; behind the stack it has another place."""
    rng = np.random.default_rng(0)
    model = build(
        """g (float[N,6,H,W] x) => (float[N,5,H,W] y) {
        [pj] h = Conv(x, w1)
        [r] r = Reshape(h, grid)
        [g0] q = Gather <axis=1> (r, n0)
        [g1] k = Gather <axis=1> (r, n1)
        [e] e = Mul(q, k)
        [b] b = Reshape(e, back)
        [out] y = Conv(b, w2)
    }""",
        w1=rng.normal(size=(10, 6, 1, 1)).astype(np.float32), w2=rng.normal(size=(5, 5, 1, 1)).astype(np.float32),
        grid=_ints([0, 2, 0, -1]), back=_ints([0, 5, 4, -1]), n0=_ints(0), n1=_ints(1),
    )  # fmt: skip
    # 10 x 4 x W as 2 x H x -1 regroups across the units as well; with H = 5 the zero is the size of one part.
    found = operators(analyse(model, {"x": (2, 6, 5, 4)}).normalised)
    assert "Split" not in found


@pytest.mark.parametrize("held", ["p", "v", "r"])
def test_graph_outputs_keep_their_tensors(held: str, build: Build, same_outputs: Same):
    model = attention(build, SPELLINGS["gather"])
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(held))
    model = onnx.shape_inference.infer_shapes(model)
    after = unpacked(model)
    assert held in {value.name for value in after.graph.output}
    same_outputs(model, after, N=2, T=3)


def test_a_pick_that_a_body_reads_is_left_alone(build: Build, same_outputs: Same):
    text = (
        SPELLINGS["gather"].replace("v = Gather", "v0 = Gather")
        + """
        [any] big = ReduceMax <keepdims=0> (x)
        [c] c = Cast <to=9> (big)
        [if] v = If (c) <then_branch = t () => (float[e,f,g,i] to) { to = Neg(v0) },
                         else_branch = o () => (float[j,l,m,n] eo) { eo = Identity(v0) }>"""
    )
    model = attention(build, text)
    after = unpacked(model)
    assert operators(after).count("Gather") == 3
    same_outputs(model, after, N=2, T=3)


def test_a_pick_that_the_caller_may_change_is_left_alone(build: Build, same_outputs: Same):
    model = attention(build, SPELLINGS["gather"])
    model.graph.input.append(onnx.helper.make_tensor_value_info("n2", onnx.TensorProto.INT64, []))
    after = unpacked(model)
    assert operators(after).count("Gather") == 3
    assert [value.name for value in after.graph.input] == ["x", "n2"]
    same_outputs(model, after, N=2, T=3)


def test_nothing_pruned_is_the_model_as_it_was(build: Build):
    model = attention(build, SPELLINGS["gather"])
    feeds = {"x": np.random.default_rng(0).normal(size=(8, 3, 6)).astype(np.float32)}
    result = prune(model, feeds, Options(target=Target("units", 1.0)))
    assert not result.plan.removes
    assert result.model.graph == model.graph


def test_the_structure_must_be_of_the_graph(build: Build):
    model = attention(build, SPELLINGS["gather"])
    structure = analyse(model, {"x": (2, 3, 6)}).structure
    result = UnpackProjections(structure)(to_graph(model))
    assert result.refusals == ("UnpackProjections: the structure was inferred from another graph",)
    assert not result.modified
