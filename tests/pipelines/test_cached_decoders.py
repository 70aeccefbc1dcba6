"""Decoders that step with a cache: pruned on nothing but token ids, they step to the logits of the whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune import Options, Target, prune
from onnx_subprune.model import open_session, run
from onnx_subprune.model.made_inputs import is_past

VOCABULARY, WIDTH, HEADS, KEY_HEADS, SIZE, HIDDEN, LONGEST = 50, 32, 4, 2, 16, 48, 64
RNG = np.random.default_rng(0)
IDS = RNG.integers(0, VOCABULARY, (48, 12))


class Builder:
    """A graph that is written node by node, with seeded weights."""

    def __init__(self, dtype: int) -> None:
        self.dtype = dtype
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(1)

    def node(self, operator: str, inputs: list[str], name: str, outputs: int = 1, **attributes: Any) -> list[str]:
        names = [name, *(f"{name}_{number}" for number in range(1, outputs))]
        domain = "com.microsoft" if operator in ("GroupQueryAttention", "SkipSimplifiedLayerNormalization") else ""
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, domain=domain, **attributes))
        return names

    def constant(self, name: str, value: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str, *shape: int) -> str:
        values = self._rng.standard_normal(shape) / np.sqrt(shape[0])
        return self.constant(name, values.astype(helper.tensor_dtype_to_np_dtype(self.dtype)))

    def model(self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.weights)
        imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, ir_version=9, opset_imports=imports)


def ids(name: str, second: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, ["batch_size", second])


def cache(builder: Builder, name: str, length: str, heads: int = KEY_HEADS) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, builder.dtype, ["batch_size", heads, length, SIZE])


def genai(packing: str, dtype: int = TensorProto.FLOAT, *, rotary: bool = True, window: int = -1) -> onnx.ModelProto:
    """Return two blocks as the model builder of onnxruntime-genai writes them; the cache is an input and an output."""
    b = Builder(dtype)
    b.constant("one", np.array([1]))
    b.node("ReduceSum", ["attention_mask", "one"], "attended", keepdims=0)
    b.node("Sub", ["attended", "one"], "last")
    b.node("Cast", ["last"], "seqlens_k", to=TensorProto.INT32)
    b.node("Shape", ["attention_mask"], "mask_shape")
    b.node("Gather", ["mask_shape", b.constant("axis", np.array(1))], "longest")
    b.node("Cast", ["longest"], "total_seq_len", to=TensorProto.INT32)
    angles = np.outer(np.arange(LONGEST), 1 / 10 ** np.linspace(0, 2, SIZE // 2))
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    tables = [b.constant("cos", np.cos(angles).astype(kind)), b.constant("sin", np.sin(angles).astype(kind))]
    stream = b.node("Gather", [b.weight("embedding", VOCABULARY, WIDTH), "input_ids"], "embedded")[0]
    for layer in range(2):
        at = f"layer_{layer}_"
        norm = b.constant(f"{at}norm", np.ones(WIDTH, kind))
        normal = b.node("SimplifiedLayerNormalization", [stream, norm], f"{at}normal", axis=-1, epsilon=1e-5)[0]
        sizes = [HEADS * SIZE, KEY_HEADS * SIZE, KEY_HEADS * SIZE]
        if packing == "separate":
            parts = [
                b.node("MatMul", [normal, b.weight(f"{at}w{n}", WIDTH, n_out)], f"{at}p{n}")[0]
                for n, n_out in enumerate(sizes)
            ]
        else:
            packed = b.node("MatMul", [normal, b.weight(f"{at}qkv", WIDTH, sum(sizes))], f"{at}packed")[0]
            parts = [packed, "", ""]
            if packing == "split":
                parts = b.node("Split", [packed, b.constant(f"{at}sizes", np.array(sizes))], f"{at}part", 3, axis=-1)
        past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
        out = b.node(
            "GroupQueryAttention",
            [*parts, *past, "seqlens_k", "total_seq_len", *(tables if rotary else [])],
            f"{at}attended",
            3,
            num_heads=HEADS,
            kv_num_heads=KEY_HEADS,
            do_rotary=int(rotary),
            local_window_size=window,
        )
        b.nodes[-1].output[1:] = [name.replace("past_key_values", "present") for name in past]
        written = b.node("MatMul", [out[0], b.weight(f"{at}o", HEADS * SIZE, WIDTH)], f"{at}written")[0]
        stream = b.node("Add", [stream, written], f"{at}middle")[0]
        gate, up = (
            b.node("MatMul", [stream, b.weight(f"{at}{name}", WIDTH, HIDDEN)], f"{at}{name}_out")[0]
            for name in ("gate", "up")
        )
        swish = b.node("Mul", [gate, b.node("Sigmoid", [gate], f"{at}sigmoid")[0]], f"{at}swish")[0]
        both = b.node("Mul", [swish, up], f"{at}both")[0]
        down = b.node("MatMul", [both, b.weight(f"{at}down", HIDDEN, WIDTH)], f"{at}down_out")[0]
        stream = b.node("Add", [stream, down], f"{at}stream")[0]
    b.node("MatMul", [stream, b.weight("head", WIDTH, VOCABULARY)], "logits")
    names = [f"{layer}.{part}" for layer in range(2) for part in ("key", "value")]
    inputs = [ids("input_ids", "sequence_length"), ids("attention_mask", "total_sequence_length")]
    inputs += [cache(b, f"past_key_values.{name}", "past_sequence_length") for name in names]
    logits = helper.make_tensor_value_info("logits", dtype, ["batch_size", "sequence_length", VOCABULARY])
    return b.model(inputs, [logits, *(cache(b, f"present.{name}", "total_sequence_length") for name in names)])


def attention(*, past: bool) -> str:
    """Return the attention of a decoder as optimum exports it, written out, on top of a past or without one."""
    joined = [
        f"{name} = Concat<axis = 2>(past_key_values_0_{part}, new_{name})" if past else f"{name} = Identity(new_{name})"
        for name, part in (("k", "key"), ("v", "value"))
    ]
    return f"""
        q0 = MatMul(x, wq)  k0 = MatMul(x, wk)  v0 = MatMul(x, wv)
        q1 = Reshape(q0, split)  k1 = Reshape(k0, split)  v1 = Reshape(v0, split)
        q = Transpose<perm = [0, 2, 1, 3]>(q1)
        new_k = Transpose<perm = [0, 2, 1, 3]>(k1)
        new_v = Transpose<perm = [0, 2, 1, 3]>(v1)
        {" ".join(joined)}
        kt = Transpose<perm = [0, 1, 3, 2]>(k)
        scores = MatMul(q, kt)
        mask_shape = Shape(attention_mask)
        total = Gather(mask_shape, one)
        key_places = Range(zero, total, one)
        query_places = Unsqueeze(position_ids, last)
        seen = LessOrEqual(key_places, query_places)
        seen_by_heads = Unsqueeze(seen, second)
        masked = Where(seen_by_heads, scores, least)
        shares = Softmax<axis = -1>(masked)
        heads = MatMul(shares, v)
        turned = Transpose<perm = [0, 2, 1, 3]>(heads)
        flat = Reshape(turned, joined)
    """


CACHE = "float[b, 2, {0}, 16] {1}_0_key, float[b, 2, {0}, 16] {1}_0_value"
LITERALS = """int64[4] split = {0, 0, 2, 16}, int64[3] joined = {0, 0, -1}, int64 one = {1}, int64 zero = {0},
    int64[1] last = {-1}, int64[1] second = {1}, float least = {-1000000000.0}"""


def branch(name: str, *, past: bool) -> str:
    """Return a branch of an If that attends."""
    outputs = f"float[b, t, 32] {name}_flat, {CACHE.format('p', name)}"
    ends = f"{name}_flat = Identity(flat) {name}_0_key = Identity(k) {name}_0_value = Identity(v)"
    return f"{name}_branch = g () => ({outputs}) {{ {attention(past=past)} {ends} }}"


def optimum(*, merged: bool) -> onnx.ModelProto:
    """Return a decoder of optimum: with a past, or with or without one as an input says."""
    inputs = "int64[b, t] input_ids, int64[b, total] attention_mask, int64[b, t] position_ids, "
    inputs += CACHE.format("past", "past_key_values")
    attended = f"{attention(past=True)} present_0_key = Identity(k) present_0_value = Identity(v)"
    if merged:
        inputs += ", bool[1] use_cache_branch"
        attended = f"""flat, present_0_key, present_0_value = If(use_cache_branch) <
            {branch("then", past=True)}, {branch("else", past=False)}>"""
    model = onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 18]>
        g ({inputs}) => (float[b, t, 50] logits, {CACHE.format("all", "present")}) <{LITERALS}> {{
            tokens = Gather(embedding, input_ids)
            places = Gather(positions, position_ids)
            x = Add(tokens, places)
            {attended}
            attended = MatMul(flat, wo)
            y = Add(x, attended)
            h = MatMul(y, up)
            r = Relu(h)
            m = MatMul(r, down)
            z = Add(y, m)
            logits = MatMul(z, head)
        }}""")
    b = Builder(TensorProto.FLOAT)
    for name in ("wq", "wk", "wv", "wo"):
        b.weight(name, WIDTH, WIDTH)
    sizes = {"embedding": (VOCABULARY, WIDTH), "positions": (LONGEST, WIDTH), "head": (WIDTH, VOCABULARY)}
    for name, shape in (sizes | {"up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}).items():
        b.weight(name, *shape)
    model.graph.initializer.extend(b.weights)
    return model


DECODERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "separate": lambda: genai("separate"),
    "packed": lambda: genai("packed"),
    "split": lambda: genai("split"),
    "no rotary": lambda: genai("separate", rotary=False),
    "window": lambda: genai("packed", window=4),
    "half separate": lambda: genai("separate", TensorProto.FLOAT16),
    "half packed": lambda: genai("packed", TensorProto.FLOAT16),
    "with past": lambda: optimum(merged=False),
    "merged": lambda: optimum(merged=True),
}
TOLERANCES = {"half separate": 5e-3, "half packed": 5e-3}


def stepped(model: onnx.ModelProto, tokens: np.ndarray, prompt: int) -> np.ndarray:
    """Return the logits of all tokens: those of the prompt in one run, then one at a time, present to past."""
    session = open_session(model)
    inputs = {value.name: value for value in session.get_inputs()}
    past = [name for name in inputs if is_past(name)]
    kind = np.float16 if inputs[past[0]].type == "tensor(float16)" else np.float32
    heads = inputs[past[0]].shape[1]
    held = dict.fromkeys(past, np.zeros((len(tokens), heads, 0, SIZE), kind))
    logits = []
    for start, stop in [(0, prompt), *((place, place + 1) for place in range(prompt, tokens.shape[1]))]:
        places = np.broadcast_to(np.arange(start, stop), (len(tokens), stop - start))
        feeds = {
            "input_ids": tokens[:, start:stop],
            "attention_mask": np.ones((len(tokens), stop), np.int64),
            "position_ids": places,
            "use_cache_branch": np.array([start > 0]),
            **held,
        }
        values = run(session, {name: feeds[name] for name in inputs})
        logits.append(values["logits"])
        held = {name: values[name.replace("past_key_values", "present")] for name in past}
    return np.concatenate(logits, axis=1)


def declared(model: onnx.ModelProto) -> dict[str, list[int | str]]:
    """Return the sizes that a model declares for its inputs and outputs, by name."""
    values = (*model.graph.input, *model.graph.output)
    return {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in values
    }


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("flavour", DECODERS)
def test_a_pruned_decoder_steps_to_the_logits_of_the_whole(flavour: str, effort: str) -> None:
    model = DECODERS[flavour]()
    # Nothing but ids: masks, positions, the switch and the empty cache are filled in.
    options = Options.of_effort(effort, target=Target.parse("params=0.8"), threads=1)
    result = prune(model, {"input_ids": IDS}, options)
    assert result.pruned.parameters < 0.85 * result.dense.parameters
    assert declared(result.model) == declared(model)
    tolerance = TOLERANCES.get(flavour, 1e-4)
    whole = stepped(result.model, IDS[:3], IDS.shape[1])
    scale = np.abs(whole).max()
    for prompt in (1, 5):
        assert np.abs(stepped(result.model, IDS[:3], prompt) - whole).max() <= tolerance * scale
    assert whole.shape == (3, IDS.shape[1], VOCABULARY)
