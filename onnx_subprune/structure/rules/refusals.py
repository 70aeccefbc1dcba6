"""Operators without a rule, and why: what they do with the axes of their inputs, in words that finish their name.

An operator without a rule is a barrier in any case. Those that a file may well hold say here what they do; all others
are told as operators that no rule is for.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.records import DEFAULT_DOMAINS, label

__all__ = ["REASONS", "reason_for"]

_SEQUENCES = "takes or makes a sequence or an optional value, not a tensor"
_STRINGS = "works on text or files"
_MADE = "makes a tensor that no layer has a part in"
_MATRICES = "mixes all entries of a matrix"
_LOSS = "is a loss, which only training needs"
_PICKS = "picks entries by their values, all axes at once"
_DECODER = "runs whole decoders in its bodies, a token at a time"
_COMPILED = "holds a network that is compiled already: prune the one that it was made from"
_PLUGIN = "is a plugin of TensorRT"
_GPU = "was fused for one kind of device: prune the model before it is optimised for that"
_STATE = "keeps a state from step to step, whose layout no rule knows"
_TRAINING = "belongs to training"
_EXPERIMENT = "was withdrawn from ONNX before its version 1"
_HYPER = "mixes the streams of a network with hyper-connections"
_DISTANCES = "compares all rows of one tensor with all of another"

# fmt: off
_ONNX = {
    _SEQUENCES: (
        "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt", "SequenceConstruct",
        "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence",
    ),
    _STRINGS: (
        "ImageDecoder", "RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit", "TfIdfVectorizer",
    ),
    _MADE: (
        "BlackmanWindow", "Constant", "HammingWindow", "HannWindow", "MelWeightMatrix", "RandomNormal", "RandomUniform",
    ),
    _MATRICES: ("Det",),
    _LOSS: ("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"),
    _PICKS: ("Unique",),
    _STATE: ("LinearAttention",),
    _EXPERIMENT: ("Crop", "DynamicSlice", "GRUUnit", "GivenTensorFill", "ImageScaler", "Scale"),
    _PLUGIN: (
        "DisentangledAttention_TRT", "EfficientNMS_TRT", "MultilevelCropAndResize_TRT", "PyramidROIAlign_TRT",
    ),
    "cuts frames out of a signal that no layer makes": ("STFT",),
    "draws classes at random": ("Multinomial",),
    "contracts by an equation that is no product of two tensors": ("Einsum",),
}
_CONTRIB = {
    _STRINGS: ("BifurcationDetector", "NGramHashMapping", "Tokenizer", "VarlenNGramHashMapping"),
    _MATRICES: ("Inverse", "Irfft", "Rfft"),
    _PICKS: ("IsAllFinite", "MurmurHash3", "NGramRepeatBlock", "SampleOp", "Unique"),
    _DECODER: ("BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"),
    _COMPILED: ("EPContext", "Snpe"),
    _STATE: (
        "DecoderAttention", "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention", "DynamicSparseAttention",
        "GatedDeltaNet", "LinearAttention", "PackedSparseAttentionIndexer", "PagedAttention", "SparseAttention",
        "SparseAttentionIndexer", "SparsePagedAttention", "VarlenCausalConvWithState",
    ),
    _GPU: (
        "FusedMatMulActivation", "GatedRelativePositionBias", "GemmFastGelu", "GemmaRotaryEmbedding",
        "LongformerAttention", "PackedAttention", "PackedMultiHeadAttention", "RemovePadding", "RestorePadding",
    ),
    _TRAINING: ("BiasDropout", "BitmaskBiasDropout", "BitmaskDropout"),
    _HYPER: ("BranchwiseRMSNorm", "EngramGate", "HyperConnectionPostMix", "HyperConnectionPreMix"),
    _DISTANCES: ("CDist", "DynamicTimeWarping"),
    "sends every token to some of its experts, out of sight": ("MoE",),
    "turns channels by positions of several axes": ("MRotaryEmbedding",),
    "scores its own input, out of sight": ("AttnLSTM",),
    "embeds words by a convolution of its own": ("WordConvEmbedding",),
    "bins distances between positions": ("RelativePositionBias",),
    "reads how it is padded from a tensor": ("ConvTransposeWithDynamicPads",),
    "pools under a mask": ("MaxpoolWithMask",),
    "multiplies a sparse matrix": ("SparseToDenseMatMul",),
}
# fmt: on

# Whatever the operator of these domains.
_DOMAINS = {
    "com.microsoft.nchwc": "is laid out for one processor, as ONNX Runtime saves at its highest level",
    "com.ms.internal.nhwc": "is laid out for one device, as ONNX Runtime does for itself",
    "ai.onnx.ml": "belongs to classical machine learning, which has no layers",
    "ai.onnx.preview": "is a preview, which no rule is for",
    "ai.onnx.preview.training": "belongs to training",
}

REASONS = {
    **{("", op): reason for reason, operators in _ONNX.items() for op in operators},
    **{("com.microsoft", op): reason for reason, operators in _CONTRIB.items() for op in operators},
}
"""By domain and operator what a node does that its axes are frozen for."""


def reason_for(node: gs.Node) -> str:
    """Return why nothing around a node without a rule is pruned.

    Args:
        node: of the graph.

    """
    domain = "" if node.domain in DEFAULT_DOMAINS else node.domain
    reason = REASONS.get((domain, node.op), _DOMAINS.get(domain))
    return f"no rule for operator {label(node)}" if reason is None else f"{label(node)} {reason}"
