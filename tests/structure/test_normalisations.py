"""What the rules note of normalisations that are one operator each."""

from __future__ import annotations

import pytest

from onnx_subprune.pipeline import analyse

DOMAIN = ', "com.microsoft" : 1'


@pytest.mark.parametrize(
    ("opset", "text", "weights", "centred", "averaged", "inputs"),
    [
        (17, "n = LayerNormalization(e, s, b)", ("s", "b"), True, True, (1, 2)),
        (23, "n = RMSNormalization(e, s)", ("s",), False, True, (1, 2)),
        (17, "n = LpNormalization <axis=-1> (e)", (), False, False, (None, None)),
        (17, "n = com.microsoft.SkipLayerNormalization(e, e, s, b)", ("s", "b"), True, True, (2, 3)),
        (17, "n = com.microsoft.SkipSimplifiedLayerNormalization(e, e, s)", ("s",), False, True, (2, None)),
    ],
)
def test_operators_say_what_they_do(net, opset, text, weights, centred, averaged, inputs) -> None:
    model = net(
        f"""g (float[2,5,6] x) => (float[a0,b0,c0] y) {{
            [emb] e = MatMul(x, we)
            [norm] {text}
            [head] y = MatMul(n, wh)
        }}""",
        opset=opset, ir=10, domains=DOMAIN, we=(6, 8), wh=(8, 3), **dict.fromkeys(weights, (8,)),
    )  # fmt: skip
    structure = analyse(model, prune_normalised=True).structure
    (noted,) = structure.records.normalisations
    assert (noted.tensor, noted.axis, noted.node.name) == ("n", 2, "norm")
    assert (noted.centred, noted.averaged, noted.pooled) == (centred, averaged, False)
    assert noted.spread is None
    if "Skip" not in text:
        assert (noted.scale, noted.shift) == inputs
    else:
        assert noted.scale == inputs[0]
    assert [statistic.node.name for statistic in structure.records.statistics] == ["norm"]
    assert noted.dim.resolve() == structure.records.axes["e"][2].resolve()


def test_a_group_normalisation_cannot_be_put_right(net) -> None:
    model = net(
        """g (float[2,3,4,5] x) => (float[a,b0,c,d] y) {
            [c1] h = Conv(x, w1)
            [norm] n = GroupNormalization <num_groups=4> (h, s, b)
            [c2] y = Conv(n, w2)
        }""",
        opset=21, ir=10, w1=(8, 3, 1, 1), w2=(4, 8, 1, 1), s=(8,), b=(8,),
    )  # fmt: skip
    (noted,) = analyse(model, prune_normalised=True).structure.records.normalisations
    assert (noted.kind, noted.dim.size, noted.pooled) == ("GroupNormalization", 2, True)
    assert noted.unrestored == "each of its groups has its own"


@pytest.mark.parametrize("operator", ["BatchNormalization", "LRN", "Softmax", "MeanVarianceNormalization"])
def test_statistics_that_never_run_over_fewer_units_are_not_noted(net, operator) -> None:
    attributes = {"LRN": "<size=3>", "Softmax": "<axis=1>", "MeanVarianceNormalization": "<axes=[1]>"}
    parameters = ", s, b, m, v" if operator == "BatchNormalization" else ""
    model = net(
        f"""g (float[2,3,4,5] x) => (float[a,b0,c,d] y) {{
            [c1] h = Conv(x, w1)
            [norm] n = {operator} {attributes.get(operator, "")} (h{parameters})
            [c2] y = Conv(n, w2)
        }}""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1), **(dict.fromkeys("sbmv", (8,)) if parameters else {}),
    )  # fmt: skip
    structure = analyse(model, prune_normalised=True).structure
    assert not structure.records.normalisations
    assert bool(structure.prunable) == (operator == "BatchNormalization")
