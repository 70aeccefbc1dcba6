"""Scales of the weights of a skeleton, so that signals neither vanish nor explode on their way.

Every convolution and matrix product with a described weight should give values that spread by one over positions and
samples. All are measured in one run; on the way through the graph, what scaling the earlier ones does to the later is
foreseen (a normalisation forgets it, a product adds up the logarithms), and further runs settle what was foreseen
wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import exp, log

import numpy as np
import onnx
import onnxruntime as ort

from zoo.skeleton import refill

__all__ = ["balance"]

ROUNDS = 30
# A layer is balanced at a spread between a half and two; in each round the first of the others are scaled.
_BALANCED = log(2)
_AT_ONCE = 0.25
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FORGETS = frozenset(
    {
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "Softmax",
        "Sigmoid",
        "Tanh",
        "HardSigmoid",
        "LogSoftmax",
        "Div",
        "LSTM",
        "GRU",
        "RNN",
    }
)
_LARGEST_STEP = 6.0


def balance(skeleton: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return the skeleton with other standard deviations of its linear weights."""
    found = onnx.ModelProto()
    found.CopyFrom(skeleton)
    described = {tensor.name: tensor for tensor in found.graph.initializer if tensor.doc_string.startswith("normal 0 ")}
    for node in found.graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.doc_string.startswith("normal 0 "):
                described[node.output[0]] = attribute.t
    layers = dict(_layers(found.graph, set(described)))
    for _ in range(ROUNDS if layers else 0):
        spreads = _spreads(found, layers, feeds)
        off = [name for name in layers if spreads[name] > 0 and abs(log(spreads[name])) > _BALANCED]
        if not off:
            break
        first = set(off[: max(8, int(_AT_ONCE * len(layers)))])
        _step(found, described, {name: weight for name, weight in layers.items() if name in first}, spreads)
    return found


def _layers(graph: onnx.GraphProto, described: set[str]) -> Iterator[tuple[str, str]]:
    """Yield the output of every linear node with the constant that is its weight, seen through Transposes."""
    source = {name: name for name in described}
    for node in graph.node:
        if node.op_type in {"Transpose", "Identity", "Cast"} and node.input[0] in source:
            source[node.output[0]] = source[node.input[0]]
        elif node.op_type in _LINEAR:
            weights = [source[name] for name in node.input[:2] if name in source]
            if len(weights) == 1:
                yield node.output[0], weights[0]


def _spreads(skeleton: onnx.ModelProto, layers: Mapping[str, str], feeds: Mapping[str, np.ndarray]) -> dict[str, float]:
    model = refill(skeleton)
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in layers if name not in present)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = list(layers)
    channel = {node.output[0]: 1 if "Conv" in node.op_type else -1 for node in model.graph.node}
    return {
        name: _spread(value, channel[name]) for name, value in zip(names, session.run(names, dict(feeds)), strict=True)
    }


def _spread(value: np.ndarray, channel: int) -> float:
    """Return the standard deviation within channels; the mean size where there is nothing to compare."""
    columns = np.moveaxis(value.astype(np.float64), channel, 0).reshape(value.shape[channel], -1)
    spread = float(np.sqrt(columns.var(axis=1).mean()))
    size = float(np.sqrt(np.square(columns).mean()))
    return spread if np.isfinite(spread) and spread > 1e-4 * size else size


def _step(
    skeleton: onnx.ModelProto,
    described: Mapping[str, onnx.TensorProto],
    layers: Mapping[str, str],
    spreads: Mapping[str, float],
) -> None:
    changes: dict[str, float] = {}
    scaled: dict[str, float] = {}
    for node in skeleton.graph.node:
        coming = [changes[name] for name in node.input if name in changes]
        change = 0.0 if node.op_type in _FORGETS or not coming else sum(coming) / len(coming)
        if node.op_type == "Mul":
            change = sum(coming)
        if node.op_type in _LINEAR and node.output[0] in layers:
            weight, spread = layers[node.output[0]], spreads[node.output[0]]
            if weight not in scaled:
                wanted = -(log(spread) + change) if np.isfinite(spread) and spread > 0 else 0.0
                scaled[weight] = max(-_LARGEST_STEP, min(_LARGEST_STEP, wanted))
            change += scaled[weight]
        for name in node.output:
            changes[name] = change
    for name, change in scaled.items():
        kind, mean, std = described[name].doc_string.split()
        described[name].doc_string = f"{kind} {mean} {float(std) * exp(change):.3g}"
