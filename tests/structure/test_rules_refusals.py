"""Malformed nodes, rule by rule: each is refused with a reason that says what is wrong with which node."""

from __future__ import annotations

import re

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.structure import Records, fresh
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.rules import SHAPE_RULES, rule_of

CONTRIB = "com.microsoft"
SHAPES = {
    "scalar": (),
    "vector": (8,),
    "flat": (2, 8),
    "sequence": (2, 5, 8),
    "map": (2, 8, 6, 6),
    "volume": (2, 8, 4, 6, 6),
    "six": (1, 1, 2, 8, 4, 6),
}


def _floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.fixture
def ctx() -> Context:
    """Return a context that knows the axes of activations of up to six axes."""
    context = Context(Records(21))
    context.axes.update({name: tuple(fresh(size) for size in shape) for name, shape in SHAPES.items()})
    context.axes["open"] = (fresh(2), fresh(8), fresh(4, dynamic=True))
    return context


def _node(op: str, *inputs: str | np.ndarray, domain: str = "", outputs: int = 1, **attrs: object) -> gs.Node:
    """A node that reads activations by name, and arrays as constants; an empty name is an input left out."""
    tensors = [
        gs.Constant(f"k{index}", value) if isinstance(value, np.ndarray) else gs.Variable(value)
        for index, value in enumerate(inputs)
    ]
    return gs.Node(op, "odd", attrs, tensors, [gs.Variable(f"y{i}") for i in range(outputs)], domain)


def _refused(node: gs.Node, words: str, ctx: Context) -> None:
    rule = rule_of(node)
    assert rule is not None
    with pytest.raises(NotUnderstood, match=re.escape(f"{node.op} 'odd' ") + ".*" + re.escape(words)):
        rule(node, ctx)
    assert node.outputs[0].name not in ctx.axes, "a node that was refused says nothing about its output"


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("Conv", "map", "map"), "has a weight that is computed"),
        (_node("Conv", "map", _floats(8)), "has a weight of 1 axes"),
        (_node("Conv", "map", _floats(4, 8, 1, 1), group=3), "has 3 groups over 4 channels"),
        (_node("Conv", "map", _floats(4, 8, 1, 1), group=0), "has 0 groups over 4 channels"),
        (_node("Conv", "map", _floats(4, 8, 3)), "reads inputs of [4, 3] axes"),
        (_node("Conv", "map", _floats(4, 8, 1, 1), _floats(4, 1)), "of 2 axes, where 1 are expected"),
        (_node("Conv", "map", _floats(4, 8, 3, 3), dilations=[2]), "has 1 'dilations' for 2 axes"),
        (_node("Conv", "map", _floats(4, 8, 3, 3), pads=[1, 1]), "has 2 'pads' for 2 axes"),
        (_node("Conv", "map", _floats(4, 8, 3, 3), strides=[1, -1]), "slides by -1"),
        (_node("ConvTranspose", "map", "map"), "has a weight that is computed"),
        (_node("ConvTranspose", "map", _floats(8, 4, 3, 3), group=5), "has 5 groups over 8 channels"),
        (_node("ConvTranspose", "map", _floats(8, 4, 3, 3), output_padding=[1]), "has 1 'output_padding' for 2 axes"),
        (_node("ConvTranspose", "map", _floats(8, 4, 3, 3), output_shape=[9]), "has 1 'output_shape' for 2 axes"),
        (_node("FusedConv", "map", "map", domain=CONTRIB), "has a weight that is computed"),
    ],
)  # fmt: skip
def test_convolutions(node: gs.Node, words: str, ctx: Context) -> None:
    _refused(node, words, ctx)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("MatMul", "vector", _floats(8, 3)), "multiplies a vector"),
        (_node("MatMul", "flat", _floats(8)), "multiplies a vector"),
        (_node("MatMul", "flat", "vector"), "multiplies a vector"),
        (_node("Gemm", "vector", _floats(8, 3)), "multiplies a vector"),
        (_node("MatMul", "flat", "unknown"), "reads 'unknown', whose shape is not known"),
        (_node("FusedMatMul", "sequence", "sequence", domain=CONTRIB, transBatchA=1), "moves its batch axes"),
        (_node("FusedMatMul", "sequence", _floats(8, 3), domain=CONTRIB, transBatchB=1), "moves its batch axes"),
    ],
)  # fmt: skip
def test_matrix_products(node: gs.Node, words: str, ctx: Context) -> None:
    _refused(node, words, ctx)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("BatchNormalization", "map", *(_floats(8) for _ in range(4)), training_mode=1), "is in training mode"),
        (_node("BatchNormalization", "vector", *(_floats(8) for _ in range(4))), "1 axes, which has no channels"),
        (_node("InstanceNormalization", "map", _floats(8, 1), _floats(8)), "of 2 axes, where 1 are expected"),
        (_node("GroupNormalization", "map", _floats(8), _floats(8)), "lacks its attribute 'num_groups'"),
        (_node("GroupNormalization", "map", _floats(8), _floats(8), num_groups=0), "has 0 as its 'num_groups'"),
        (_node("GroupNormalization", "scalar", _floats(8), _floats(8), num_groups=2), "0 axes, which has no channels"),
        (_node("LRN", "vector", size=3), "1 axes, which has no channels"),
        (_node("RMSNormalization", "sequence", _floats(8), axis=3), "names axis 3 of a tensor of 3 axes"),
        (_node("MeanVarianceNormalization", "sequence"), "names axis 3 of a tensor of 3 axes"),
        (_node("LogSoftmax", "scalar"), "names axis -1 of a tensor of 0 axes"),
    ],
)  # fmt: skip
def test_normalisations(node: gs.Node, words: str, ctx: Context) -> None:
    _refused(node, words, ctx)


def test_a_group_normalisation_of_before_it_scaled_channels(ctx: Context) -> None:
    """Up to opset 20 the operator had one scale for each group."""
    old = Context(Records(20))
    old.axes.update(ctx.axes)
    _refused(_node("GroupNormalization", "map", _floats(2), _floats(2), num_groups=2), "one scale for each group", old)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("Squeeze", "open"), "drops the axes that have one entry at run time"),
        (_node("Squeeze", "map", np.array([4])), "names axis 4 of a tensor of 4 axes"),
        (_node("Unsqueeze", "flat", np.array([0, -4])), "inserts one axis twice"),
        (_node("Unsqueeze", "flat", np.array([3])), "names axis 3 of a tensor of 3 axes"),
        (_node("Unsqueeze", "flat"), "takes sizes that are computed from data"),
        (_node("Transpose", "flat", perm=[1, 1]), "permutes 2 axes by [1, 1]"),
        (_node("Flatten", "map", axis=-5), "names axis -5 of a tensor of 4 axes"),
        (_node("Tile", "flat", np.array([2])), "gives 1 repetitions for 2 axes"),
        (_node("Concat", axis=0), "has no input"),
        (_node("Concat", "flat", "sequence", axis=0), "reads inputs of [2, 3] axes"),
        (_node("Reshape", "flat", np.array([0, 0, 0])), "copies the size of an axis that its input does not have"),
        (_node("Reshape", "flat", "vector"), "takes sizes that are computed from data"),
        (_node("Expand", "flat", "vector"), "takes sizes that are computed from data"),
    ],
)  # fmt: skip
def test_movements(node: gs.Node, words: str, ctx: Context) -> None:
    _refused(node, words, ctx)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("Split", "flat", "vector", axis=1), "takes sizes that are computed from data"),
        (_node("Slice", "flat", np.array([0]), np.array([4, 4])), "gives 1 starts, 2 ends"),
        (_node("Slice", "flat", np.array([0]), np.array([4]), np.array([1]), np.array([0])), "the steps [0]"),
        (_node("Slice", "flat", np.array([0]), np.array([4]), np.array([-3])), "names axis -3 of a tensor of 2 axes"),
        (_node("Slice", "flat", np.array([-1]), np.array([0]), np.array([1])), "takes an empty range"),
        (_node("Pad", "flat", np.array([0, 1, 0])), "gives 3 pads for 2 axes"),
        (_node("Pad", "flat", np.array([1, 1]), "", np.array([2])), "names axis 2 of a tensor of 2 axes"),
        (_node("Gather", "flat", np.array([0]), axis=-3), "names axis -3 of a tensor of 2 axes"),
        (_node("Gather", "flat", "unknown"), "reads 'unknown', whose shape is not known"),
    ],
)  # fmt: skip
def test_cuts(node: gs.Node, words: str, ctx: Context) -> None:
    _refused(node, words, ctx)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("GatherND", "flat", "scalar"), "addresses entries by a single number"),
        (_node("GatherND", "flat", "open"), "addresses a number of axes that is known at run time only"),
        (_node("ScatterND", "flat", _floats(3, 1), _floats(3)), "reads inputs of [1, 2] axes"),
        (_node("GatherElements", "map", "flat"), "reads inputs of [4, 2] axes"),
        (_node("ScatterElements", "flat", "flat", "sequence"), "reads inputs of [2, 3] axes"),
        (_node("OneHot", "flat", np.array([3, 4]), _floats(2)), "does not give one depth"),
        (_node("OneHot", "flat", np.array(3), _floats(2), axis=4), "names axis 4 of a tensor of 3 axes"),
        (_node("Compress", "flat", np.ones(4, np.bool_)), "picks entries of all axes at once"),
        (_node("ReverseSequence", "flat", "flat"), "of 2 axes, where 1 are expected"),
        (_node("CumSum", "flat", np.array([0, 1])), "does not name one axis"),
        (_node("CumSum", "flat", np.array(2)), "names axis 2 of a tensor of 2 axes"),
        (_node("TopK", "flat", np.array([2, 3])), "does not give one number of entries"),
        (_node("ReduceSum", "flat", np.array([2])), "names axis 2 of a tensor of 2 axes"),
        (_node("ArgMin", "flat", axis=-3), "names axis -3 of a tensor of 2 axes"),
    ],
)  # fmt: skip
def test_indices_and_reductions(node: gs.Node, words: str, ctx: Context) -> None:
    _refused(node, words, ctx)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("Add", "flat", "flat", broadcast=1), "broadcasts in the way of opset 6"),
        (_node("Sum"), "has no input"),
        (_node("Clip", "flat", _floats(8)), "takes a parameter that is not a scalar"),
        (_node("Range", np.array(0), np.array(8), np.array(0)), "counts by 0"),
        (_node("ConstantOfShape", "vector"), "takes sizes that are computed from data"),
        (_node("GridSample", "map", "flat"), "reads inputs of [4, 2] axes"),
        (_node("AffineGrid", "flat", np.array([2, 8, 3, 3])), "of 2 axes, where 3 are expected"),
        (_node("RoiAlign", "sequence", "flat"), "of 3 axes, where 4 are expected"),
        (_node("MaxRoiPool", "map", "sequence"), "of 3 axes, where 2 are expected"),
        (_node("Col2Im", "sequence", np.array([4, 4]), np.array([2, 2])), "cuts 5 channels to blocks of [2, 2]"),
        (_node("Col2Im", "flat", np.array([4, 4]), np.array([2, 2])), "of 2 axes, where 3 are expected"),
        (_node("SpaceToDepth", "sequence", blocksize=2), "of 3 axes, where 4 are expected"),
        (_node("LpPool", "map", kernel_shape=[2, 2], pads=[1]), "has 1 'pads' for 2 axes"),
        (_node("Resize", "map", "", "vector"), "has scales that are computed from data"),
        (_node("Resize", "map", "", _floats(3)), "has scales that are computed from data"),
        (_node("Resize", "map", "", "", np.array([2, 8, 9])), "gives 3 sizes, too few for its axes"),
        (_node("Resize", "map", "", _floats(4), keep_aspect_ratio_policy="not_larger"), "from an aspect ratio"),
        (_node("Resize", "map", "", _floats(4), coordinate_transformation_mode="tf_crop_and_resize"), "crops every"),
        (_node("Resize", "map", "", _floats(1), axes=[4]), "names axis 4 of a tensor of 4 axes"),
    ],
)  # fmt: skip
def test_the_rest_of_onnx(node: gs.Node, words: str, ctx: Context) -> None:
    _refused(node, words, ctx)


PACKED = _floats(8, 24)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("Attention", "sequence", "flat", domain=CONTRIB, num_heads=2), "has a weight that is computed"),
        (_node("Attention", "sequence", _floats(8, 24, 1), domain=CONTRIB, num_heads=2), "has a weight of 3 axes"),
        (_node("Attention", "flat", PACKED, domain=CONTRIB, num_heads=2), "of 2 axes, where 3 are expected"),
        (_node("Attention", "sequence", PACKED, domain=CONTRIB, num_heads=3), "to 3 heads of (8, 8, 8)"),
        (
            _node("Attention", "sequence", PACKED, domain=CONTRIB, num_heads=2, qkv_hidden_sizes=[8, 6, 10]),
            "cuts 24 columns to 2 heads of (8, 6, 10)",
        ),
        (
            _node("Attention", "sequence", PACKED, domain=CONTRIB, num_heads=2, qkv_hidden_sizes=[8, 16]),
            "cuts 24 columns to 2 heads of (8, 16)",
        ),
        (
            _node(
                "Attention", "sequence", PACKED, _floats(24), "", "volume",
                domain=CONTRIB, num_heads=2, qkv_hidden_sizes=[6, 6, 12],
            ),
            "remembers keys and values of different sizes",
        ),
        (_node("MultiHeadAttention", "volume", domain=CONTRIB, num_heads=2), "packed in one tensor"),
        (_node("MultiHeadAttention", "sequence", "sequence", domain=CONTRIB, num_heads=2), "packed in one tensor"),
        (_node("MultiHeadAttention", *["flat"] * 3, domain=CONTRIB, num_heads=2), "packed in one tensor"),
        (_node("GroupQueryAttention", *["sequence"] * 3, domain=CONTRIB, num_heads=2), "attribute 'kv_num_heads'"),
        (
            _node("GroupQueryAttention", *["sequence"] * 3, domain=CONTRIB, num_heads=3, kv_num_heads=2),
            "has 3 heads of queries and 2 of keys",
        ),
        (
            _node("GroupQueryAttention", "sequence", domain=CONTRIB, num_heads=4, kv_num_heads=1),
            "cuts 8 entries to 4 and 2 x 1 heads",
        ),
        (
            _node(
                "GroupQueryAttention", *["sequence"] * 3, *[""] * 9, "vector",
                domain=CONTRIB, num_heads=2, kv_num_heads=2,
            ),
            "keeps quantised keys and values",
        ),
        (_node("Attention", *["sequence"] * 3, q_num_heads=2), "lacks its attribute 'kv_num_heads'"),
        (_node("Attention", "map", "sequence", "map"), "reads inputs of [4, 3, 4] axes"),
        (_node("Attention", *["sequence"] * 3, q_num_heads=16, kv_num_heads=16), "has 16 heads of queries"),
        (_node("RotaryEmbedding", "volume", _floats(5, 2), _floats(5, 2)), "turns a tensor of 5 axes"),
        (_node("RotaryEmbedding", "sequence", _floats(5, 5), _floats(5, 5)), "does not say how many heads it turns"),
        (_node("RotaryEmbedding", "sequence", _floats(5, 2), _floats(5, 2), num_heads=3), "how many heads it turns"),
    ],
)  # fmt: skip
def test_attention(node: gs.Node, words: str, ctx: Context) -> None:
    _refused(node, words, ctx)


W, R = _floats(1, 12, 8), _floats(1, 12, 3)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("LSTM", "sequence", "sequence", R, hidden_size=3), "has weights that are computed"),
        (_node("LSTM", "sequence", W, "sequence", hidden_size=3), "has weights that are computed"),
        (_node("LSTM", "sequence", _floats(12, 8), R, hidden_size=3), "has weights that are computed"),
        (_node("GRU", "sequence", W, R, hidden_size=3), "has weights that do not fit its gates"),
        (_node("LSTM", "sequence", W, R, "flat", hidden_size=3), "has a bias that is computed"),
        (_node("LSTM", "sequence", W, R, _floats(24), hidden_size=3), "reads inputs of [1, 2] axes"),
        (_node("LSTM", "sequence", W, R, "", "", _floats(1, 3), hidden_size=3), "reads inputs of [2, 3] axes"),
        (_node("LSTM", "flat", W, R, hidden_size=3), "of 2 axes, where 3 are expected"),
        (_node("EmbedLayerNormalization", "flat", "", domain=CONTRIB), "has no table"),
        (_node("EmbedLayerNormalization", "flat", "", _floats(9), domain=CONTRIB), "has a table of 1 axes"),
        (_node("EmbedLayerNormalization", "flat", "", "sequence", domain=CONTRIB), "where 2 are expected"),
        (_node("SkipLayerNormalization", "vector", "flat", _floats(8), domain=CONTRIB), "reads inputs of [1, 2, 2]"),
        (_node("SkipLayerNormalization", "flat", "flat", _floats(8, 1), domain=CONTRIB), "where 1 are expected"),
        (_node("If", "scalar"), "chooses between two bodies at run time"),
        (_node("Scan", "flat"), "repeats a body"),
        (_node("QLinearConv", "map"), "prune the float model before quantising"),
        (_node("MatMulNBits", "flat", domain=CONTRIB), "prune the float model before quantising"),
    ],
)  # fmt: skip
def test_recurrent_layers_and_fused_operators(node: gs.Node, words: str, ctx: Context) -> None:
    _refused(node, words, ctx)


def test_a_recurrent_layer_whose_states_nobody_names(ctx: Context) -> None:
    node = _node("LSTM", "sequence", W, R, outputs=2, hidden_size=3)
    node.outputs[0] = gs.Variable("")
    with pytest.raises(NotUnderstood, match="no first output"):
        rule_of(node)(node, ctx)  # type: ignore[misc]


SIZES = np.array([2, 8, 6, 6])


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (_node("Add", np.arange(3), np.arange(2)), "computes with sizes that do not fit"),
        (_node("Reshape", SIZES, np.array([3, 2])), "computes with sizes that do not fit"),
        (_node("Transpose", SIZES, perm=[0, 1]), "computes with sizes that do not fit"),
        (_node("Squeeze", SIZES, np.array([0])), "computes with sizes that do not fit"),
        (_node("Unsqueeze", SIZES, np.array([5])), "computes with sizes that do not fit"),
        (_node("Gather", SIZES, np.array([4])), "computes with sizes that do not fit"),
        (_node("Slice", SIZES, np.array([0, 1]), np.array([2])), "gives 2 starts, 1 ends"),
        (_node("Slice", SIZES, np.array([0]), np.array([2]), np.array([0]), np.array([0])), "the steps [0]"),
        (_node("Slice", SIZES, np.array([0]), np.array([2]), np.array([1])), "names axes [1] of a tensor of 1 axes"),
        (_node("Concat", SIZES, SIZES), "lacks its attribute 'axis'"),
        (_node("Concat", SIZES, SIZES, axis=1), "computes with sizes that do not fit"),
    ],
)  # fmt: skip
def test_arithmetic_on_sizes(node: gs.Node, words: str, ctx: Context) -> None:
    with pytest.raises(NotUnderstood, match=re.escape(f"{node.op} 'odd' ") + ".*" + re.escape(words)):
        SHAPE_RULES[node.op](node, ctx)


@pytest.mark.parametrize(
    "node",
    [
        _node("Add", "vector", np.array([1])),
        _node("Cast", SIZES, to=1),
        _node("ReduceProd", np.ones((2, 2), np.int64)),
        _node("Gather", SIZES, "vector"),
        _node("Gather", "vector", np.array([0])),
        _node("Transpose", "vector"),
        _node("Slice", "vector", np.array([0]), np.array([1])),
        _node("Concat", np.array([1]), "vector", axis=0),
        _node("ConstantOfShape", np.array([2])),
        _node("ConstantOfShape", np.array([64, 64]), value=np.zeros(1, np.int64)),
        _node("Add", np.zeros(1100, np.int64), np.array([1])),
    ],
)
def test_what_is_no_arithmetic_on_sizes_is_left_to_the_other_rules(node: gs.Node, ctx: Context) -> None:
    assert SHAPE_RULES[node.op](node, ctx) is None
