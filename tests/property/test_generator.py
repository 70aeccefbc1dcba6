"""The generator of random networks has every operator with a rule, but for those that a table gives a reason for."""

from __future__ import annotations

import random

import pytest
from generator.network import Network
from generator.strategy import STEPS

from onnx_subprune.structure import QUANTISED
from onnx_subprune.structure.rules import RULES

OLD, RANDOM = "ONNX withdrew it before opset 17", "draws its entries at random"
NEW = "of an opset for which ONNX Runtime has no kernel yet"
FOR_GPUS = (
    "BiasAdd", "BiasSoftmax", "BiasSplitGelu", "ComplexMul", "ComplexMulConj", "GroupNorm", "NhwcConv", "NhwcFusedConv",
    "SkipGroupNorm",
)  # fmt: skip
LEFT_OUT = {
    ("", "Bernoulli"): RANDOM,
    ("", "CumProd"): NEW,
    ("", "NonMaxSuppression"): "gives positions of boxes out; nothing behind it has channels",
    ("", "RandomNormalLike"): RANDOM,
    ("", "RandomUniformLike"): RANDOM,
    ("", "Scatter"): OLD,
    ("", "SequenceMap"): "works on sequences, which nothing here makes",
    ("", "Upsample"): OLD,
    **dict.fromkeys((("", op) for op in ("Affine", "ParametricSoftplus", "ScaledTanh")), OLD),
    **dict.fromkeys((("", op) for op in ("BitCast", "CausalConvWithState", "SwiGLU")), NEW),
    **dict.fromkeys((("", op) for op in ("MemcpyFromHost", "MemcpyToHost")), "ONNX Runtime writes it, for devices"),
    **dict.fromkeys((("com.microsoft", op) for op in FOR_GPUS), "has no kernel here: tests/structure says what it is"),
    ("com.microsoft", "NhwcMaxPool"): "takes integers alone",
    ("com.microsoft", "Range"): "gives a length out; nothing behind it has channels",
    ("com.microsoft", "TorchEmbedding"): "has no kernel here",
    **dict.fromkeys(QUANTISED, "refused before the rules run: test_quantisation.py"),
}


@pytest.fixture(scope="module")
def emitted() -> set[tuple[str, str]]:
    """Operators that the steps add by themselves, with as many of their choices as it takes, at two opsets."""
    found: set[tuple[str, str]] = set()
    for salt in range(400):
        for step in dict.fromkeys(STEPS):
            net = Network(opset=(17, 24)[salt % 2])
            step(net, random.Random(f"{step.__name__}/{salt}"))
            found.update((node.domain, node.op_type) for node in net.nodes)
        if set(RULES) <= found | set(LEFT_OUT):
            break
    return found


def test_every_operator_with_a_rule_is_generated_or_left_out_for_a_reason(emitted):
    assert sorted(set(RULES) - emitted) == sorted(LEFT_OUT)
