"""`onnxsim.pruning` in a process of its own: a line of JSON in, a line out; runs only where onnxsim is.

    PYTHON onnxsim_child.py MODEL.onnx FEEDS.npz ...

A request `{"mode": "norm" or "wanda", "sparsity": .., "out": ..}` removes that share of the channels of every layer,
and of the heads of fused attention; the answer is what went wrong, or "".
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
import onnx
from onnxsim import pruning


def prune(model: onnx.ModelProto, feeds: list[dict[str, Any]], request: dict[str, Any]) -> onnx.ModelProto:
    """By the norm of the weights, or by that times the norm of the activations."""
    share = request["sparsity"]
    if request["mode"] == "norm":
        return pruning.apply_attention_head_pruning(
            pruning.apply_structured_pruning(model, sparsity=share), sparsity=share
        )
    small = pruning.apply_structured_wanda_pruning(model, feeds, sparsity=share)
    return pruning.apply_attention_head_wanda_pruning(small, feeds, sparsity=share)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    source, *files = sys.argv[1:]
    feeds = [dict(np.load(path)) for path in files]
    for line in sys.stdin:
        request = json.loads(line)
        try:
            onnx.save(prune(onnx.load(source), feeds, request), request["out"])
            found = ""
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
