"""Torch-Pruning in a process of its own: a line of JSON in, a line out; runs only where torch and torch_pruning are.

    PYTHON torch_child.py MODEL.onnx EXAMPLES.npz

EXAMPLES holds the input and ONNX Runtime's output of a few samples: the module made of the model must compute the same.
A request `{"ratio": .., "p": .., "layers": [..] or null, "out": ..}` prunes that share of the channels of every layer
(or of the layers made of the named ONNX nodes) by magnitude and exports the result; the answer is what went wrong, or
"".
"""

from __future__ import annotations

import copy
import json
import os
import sys
import warnings
from typing import Any

import numpy as np
import onnx
import torch
import torch_pruning
from torch import Tensor, nn
from torch_graph import OnnxModule

TOLERANCE = 1e-4


def opened(model: str, examples: str) -> tuple[OnnxModule, Tensor]:
    """The module, held to ONNX Runtime's outputs, and its example input."""
    found = np.load(examples)
    given, expected = torch.from_numpy(found["input"]), found["output"]
    module = OnnxModule(onnx.load(model).graph).eval()
    module.settle(given[:1])
    with torch.no_grad():
        error = np.abs(module(given).numpy() - expected).max() / np.abs(expected).max()
    if error > TOLERANCE:
        raise ValueError(f"the module was expected to compute what the ONNX model does, it differs by {error:.1e}")
    # Two samples: an exporter takes a batch of one for fixed.
    return module, given[:2]


def prune(module: OnnxModule, example: Tensor, request: dict[str, Any]) -> nn.Module:
    """A pruned copy."""
    small = copy.deepcopy(module)
    layers = request["layers"]
    ratio = request["ratio"]
    chosen = {} if layers is None else {small.layers[small.names[name]]: ratio for name in layers}
    last = [each for each in small.modules() if isinstance(each, (nn.Linear, nn.Conv2d))][-1]
    pruner = torch_pruning.pruner.BasePruner(
        small,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=request["p"]),
        pruning_ratio=ratio if layers is None else 0.0,
        pruning_ratio_dict=chosen,
        ignored_layers=[last],
    )
    pruner.step()
    return small


def export(module: OnnxModule, example: Tensor, request: dict[str, Any]) -> None:
    """Prune and export."""
    free = {0: "N"} if example.is_floating_point() else {0: "N", 1: "T"}
    torch.onnx.export(
        prune(module, example, request),
        (example,),
        request["out"],
        opset_version=17,
        dynamo=False,
        input_names=[module.given],
        output_names=["output"],
        dynamic_axes={module.given: free, "output": free},
    )


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    module = None
    for line in sys.stdin:
        try:
            module = module or opened(*sys.argv[1:])
            export(*module, json.loads(line))
            found = ""
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
