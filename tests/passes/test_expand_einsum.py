"""Einsum in the operators that rules know: the same values, for every kind of label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune.passes import ExpandEinsum

Build = Callable[..., onnx.ModelProto]
Apply = Callable[..., onnx.ModelProto]
Same = Callable[..., None]
SIZES = {label: 2 + i % 5 for i, label in enumerate("abcdefghijklmnopqrstuvwxyzABCDGHIJ")}


def _rank(equation: str) -> str:
    """Return names for the axes of the output, as many as it has."""
    left, arrow, output = equation.replace(" ", "").replace("...", "").partition("->")
    count = len(output) if arrow else sum(left.count(label) == 1 for label in set(left) - {","})
    return ",".join(f"out{i}" for i in range(count))


def _model(
    build: Build, equation: str, constants: tuple[int, ...], opset: int = 17, free: bool = False
) -> onnx.ModelProto:
    """Return an Einsum whose operands are inputs of the graph or constants; the first axis of an input may be free."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    rng = np.random.default_rng(0)
    shapes = [[SIZES[label] for label in term] for term in terms]
    weights = {f"w{i}": rng.standard_normal(shapes[i]).astype(np.float32) for i in constants}
    names = [f"w{i}" if i in constants else f"x{i}" for i in range(len(terms))]
    inputs = ", ".join(
        f"float[{','.join([term[0].upper() if free else str(s[0]), *map(str, s[1:])])}] x{i}"
        for i, (term, s) in enumerate(zip(terms, shapes, strict=True))
        if i not in constants
    )
    body = f'{{ [e] y = Einsum <equation="{equation}"> ({", ".join(names)}) }}'
    return build(f"g ({inputs}) => (float[{_rank(equation)}] y) {body}", opset=opset, **weights)


EQUATIONS = [
    "bhqd,bhkd->bhqk",
    "bhqk,bhkd->bqhd",
    "B G H I D, B G H J D -> B G H I J",
    "bnd,bnep->bepd",
    "bnep,bepd->bnd",
    "bnd,de->bne",
    "bld,dhe->blhe",
    "bld,hed->bhle",
    "blhd,hde->ble",
    "blhd,hdef->bfle",
    "bnd,dep->bnep",
    "nd,edh->neh",
    "neh,ehd->ned",
    "ehd,neh->ned",
    "bnmeh,ehd->bnmed",
    "bneh,ehdf->bfned",
    "nd,d->n",
    "bd,d->b",
    "bnd,bd->bn",
    "bd,bnd->bn",
    "bi,bj->bij",
    "bhw,h->bhw",
    "nchw,nc->nchw",
    "ij,jk",
    "abc,cd->bd",
    "abc,cde->be",
    "abijk,abkl->abijl",
    "abk,abckl->abcl",
]


@pytest.mark.parametrize("constants", [(), (0,), (1,)])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_products_of_two(
    build: Build, apply: Apply, same_outputs: Same, equation: str, constants: tuple[int, ...]
) -> None:
    model = _model(build, equation, constants)
    after = apply(model, ExpandEinsum())
    found = Counter(node.op_type for node in after.graph.node)
    assert not found["Einsum"]
    assert found["MatMul"] + found["Mul"] == 1
    same_outputs(model, after)


@pytest.mark.parametrize(
    ("equation", "constants"),
    [("bld,dhe->blhe", (1,)), ("neh,ehd->ned", (1,)), ("bnep,bepd->bnd", ()), ("bhqd,bhkd->bhqk", ())],
)
def test_sizes_known_at_run_time(
    build: Build, apply: Apply, same_outputs: Same, equation: str, constants: tuple[int, ...]
) -> None:
    model = _model(build, equation, constants, free=True)
    after = apply(model, ExpandEinsum())
    assert "Einsum" not in {node.op_type for node in after.graph.node}
    same_outputs(model, after, B=3, N=5)


@pytest.mark.parametrize("equation", ["ij->ji", "ijk->ik", "ijk->k", "ba", "abc->abc"])
def test_one_operand(build: Build, apply: Apply, same_outputs: Same, equation: str) -> None:
    model = _model(build, equation, ())
    after = apply(model, ExpandEinsum())
    assert "Einsum" not in {node.op_type for node in after.graph.node}
    same_outputs(model, after)


@pytest.mark.parametrize("equation", ["bnd,bd->bn", "abc,cd->bd", "bd,d->b"])
def test_axes_as_attributes(build: Build, apply: Apply, same_outputs: Same, equation: str) -> None:
    model = _model(build, equation, (1,), opset=12)
    same_outputs(model, apply(model, ExpandEinsum()))


@pytest.mark.parametrize("equation", ["...qd,...kd->...qk", "...ij,jk->...ik"])
def test_an_ellipsis(build: Build, apply: Apply, same_outputs: Same, equation: str) -> None:
    right = "float[3,2,5,4] r" if equation.count("...") == 3 else "float[4,6] r"
    model = build(
        f"""g (float[3,2,6,4] x, {right}) => (float[a,b,c,d] y) {{ y = Einsum <equation="{equation}"> (x, r) }}"""
    )
    after = apply(model, ExpandEinsum())
    assert "Einsum" not in {node.op_type for node in after.graph.node}
    same_outputs(model, after)


@pytest.mark.parametrize(
    ("equation", "operands"),
    [
        ("ii->i", "float[3,3] x"),
        ("ij,jk,kl->il", "float[3,3] x, float[3,3] r, float[3,3] s"),
        ("...i,...i->...", "float[2,3] x, float[4,2,3] r"),
        ("ij,jk->ik", "float[3,4] x, float[1,4] r"),
        ("ij,jk->ik", "int64[3,4] x, int64[4,4] r"),
    ],
)
def test_what_stays(build: Build, apply: Apply, equation: str, operands: str) -> None:
    kind = operands.partition("[")[0]
    names = ", ".join(part.split()[-1] for part in operands.split(", "))
    rank = "out0,out1" if "..." in equation else _rank(equation)
    model = build(f'g ({operands}) => ({kind}[{rank}] y) {{ y = Einsum <equation="{equation}"> ({names}) }}')
    assert [node.op_type for node in apply(model, ExpandEinsum()).graph.node] == ["Einsum"]


def test_a_constant_that_several_read_is_rearranged_once(build: Build, apply: Apply, same_outputs: Same) -> None:
    model = build(
        """g (float[2,3,4] x, float[5,4] z) => (float[a,b,c,d] y, float[e,f,g] v) {
            y = Einsum <equation="bnd,dep->bnep"> (x, w)
            v = Einsum <equation="bd,dep->bep"> (z, w)
        }""",
        w=np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32),
    )
    after = apply(model, ExpandEinsum())
    same_outputs(model, after)
    weights = {node.input[1] for node in after.graph.node if node.op_type == "MatMul"}
    assert len(weights) == 1
