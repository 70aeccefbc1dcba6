"""How the time of the ways in and out grows with the size of a model.

    python tools/bench_model.py [--initializers 5000 20000]

Processor seconds of saving, loading, the fingerprint, the cost, the import to GraphSurgeon and the export, on chains of
an Add and a Relu for each initializer. Each shape of chain has many of what is looked up by name: weights that are
graph inputs too, every tensor an output, one name for all nodes, Constant nodes in the place of weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune.model import fingerprint, load_model, measure_cost, save_model, to_graph, to_model


def chain(initializers: int) -> onnx.ModelProto:
    """Return y = ... Relu(Relu(x + w0) + w1) ..., every tensor with a declared shape."""
    nodes, weights, infos, source = [], [], [], "x"
    for index in range(initializers):
        weights.append(numpy_helper.from_array(np.full((1, 4), index, np.float32), f"w{index}"))
        for op, inputs in (("Add", [source, f"w{index}"]), ("Relu", [f"Add{index}"])):
            source = f"{op}{index}"
            nodes.append(helper.make_node(op, inputs, [source], name=source))
            infos.append(helper.make_tensor_value_info(source, TensorProto.FLOAT, [1, 4]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph(nodes, "chain", [x], [infos.pop()], weights, value_info=infos)
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


def with_weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model as IR version 3 wants it."""
    model.ir_version = 3
    for weight in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    return model


def with_every_tensor_an_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with all it computes handed out."""
    model.graph.output.extend(model.graph.value_info)
    del model.graph.value_info[:]
    return model


def with_one_name(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with nodes that cannot be told apart by name."""
    for node in model.graph.node:
        node.name = "node"
    return model


def with_constant_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with a node for each weight."""
    constants = [helper.make_node("Constant", [], [weight.name], value=weight) for weight in model.graph.initializer]
    nodes = [*constants, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


SHAPES: dict[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "plain": lambda model: model,
    "weights as inputs": with_weights_as_inputs,
    "all outputs": with_every_tensor_an_output,
    "one name": with_one_name,
    "constant nodes": with_constant_nodes,
}


def seconds(model: onnx.ModelProto, folder: Path) -> dict[str, float]:
    """Return the processor seconds of each step."""
    path, times = folder / "model.onnx", {}
    graph = to_graph(model)
    steps: dict[str, Callable[[], object]] = {
        "save": lambda: save_model(model, path),
        "load": lambda: load_model(path),
        "fingerprint": lambda: fingerprint(model),
        "cost": lambda: measure_cost(model),
        "import": lambda: to_graph(model),
        "export": lambda: to_model(graph, model),
    }
    for name, step in steps.items():
        start = time.process_time()
        step()
        times[name] = time.process_time() - start
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--initializers", type=int, nargs="+", default=[5000, 20000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for shape, change in SHAPES.items():
            for count in arguments.initializers:
                times = seconds(change(chain(count)), Path(folder))
                print(f"{shape:18} {count:6}", *(f"{name} {time:5.2f}" for name, time in times.items()), flush=True)


if __name__ == "__main__":
    main()
