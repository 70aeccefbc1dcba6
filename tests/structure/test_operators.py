"""Every operator of ONNX has a rule or stands here, with why it is a barrier."""

from __future__ import annotations

import onnx
import pytest

from onnx_subprune.structure.rules import RULES, SHAPE_RULES

BARRIERS = {
    "sequences and optionals, not tensors": (
        "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt", "SequenceConstruct",
        "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence",
    ),
    "strings and files": (
        "ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
    ),
    "makes a tensor of nothing that can be pruned": (
        "BlackmanWindow", "Constant", "HammingWindow", "HannWindow", "MelWeightMatrix", "RandomNormal", "RandomUniform",
    ),
    "mixes whole axes and is rare in networks": ("CenterCropPad", "DFT", "Det", "STFT", "Multinomial", "Unique"),
    "positions count over the channels": ("MaxUnpool",),
    "losses": ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
    "changes how many entries there are": ("BitCast",),
    "its weights would need a recovery of their own": ("DeformConv",),
    "fused, of the newest operator sets": (
        "CausalConvWithState", "LinearAttention", "SwiGLU", "TensorScatter",
    ),
    "contracts by an equation; a pass rewrites those that are products of two tensors": ("Einsum",),
}  # fmt: skip
KNOWN = {op for domain, op in RULES if not domain} | set(SHAPE_RULES)
ALL = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})


@pytest.mark.parametrize("operator", ALL)
def test_every_operator_has_a_rule_or_a_reason(operator):
    listed = [why for why, operators in BARRIERS.items() if operator in operators]
    if operator in KNOWN:
        assert not listed, f"{operator} has a rule by now: take it out of BARRIERS"
    else:
        assert len(listed) == 1, f"{operator} has no rule: write one, or list it in BARRIERS"


def test_no_rule_is_for_an_operator_that_onnx_does_not_have():
    """Older exporters put an operator of ONNX Runtime into the domain of ONNX."""
    assert sorted(KNOWN - set(ALL)) == ["SimplifiedLayerNormalization"]
