"""Whether pruning stands in the way of ONNX Runtime's fusions: the operators that run, dense beside pruned.

    python tools/fusion_table.py                     every network of the zoo
    python tools/fusion_table.py bert_ts17 gpt2_ts17 --recovery exact
    python tools/fusion_table.py --model m.onnx --calib data.npz

Both models go through ONNX Runtime's optimiser, and the operators of what it writes are counted, those of bodies too:
with `extended` what fuses whatever the processor, with `all` also the layout of memory that this processor likes. Any
other level is a kind of model that `onnxruntime.transformers.optimizer` knows (bert, gpt2, vit, t5 ...), whose
fusions are done. A line for every network with a difference: the operator, how many there are in the dense and in the
pruned network.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from zoo import Entry, read_entries, read_skeleton, refill

from onnx_subprune.model import load_model, save_model
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import prune

ZOO = Path(__file__).resolve().parents[1] / "tests" / "zoo"
LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
BATCHES = 4
# The forms that fusions write, and what else does that work.
FUSED = {
    "SkipLayerNormalization": "LayerNormalization",
    "SkipSimplifiedLayerNormalization": "SimplifiedLayerNormalization",
    "FusedMatMul": "MatMul",
    "Gemm": "MatMul",
    "FusedGemm": "MatMul",
    "FusedConv": "Conv",
    "BiasGelu": "Gelu",
    "FastGelu": "Gelu",
    "BiasSoftmax": "Softmax",
    "Attention": "Attention",
    "MultiHeadAttention": "MultiHeadAttention",
}
# They say how memory is to be looked at, and move none.
VIEWS = {"Squeeze": "Reshape", "Unsqueeze": "Reshape", "Flatten": "Reshape"}


def optimised(model: onnx.ModelProto, level: str = "extended") -> onnx.ModelProto:
    """Return the model as ONNX Runtime's optimiser leaves it on the CPU, or that of its tools for a kind of model."""
    if level not in LEVELS:
        return transformed(model, level)
    with tempfile.TemporaryDirectory() as folder:
        path, written = Path(folder) / "model.onnx", Path(folder) / "optimised.onnx"
        save_model(model, path)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = LEVELS[level]
        options.optimized_model_filepath = str(written)
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(written)


def transformed(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    """Return the model as the optimiser for transformers leaves it."""
    from onnxruntime.transformers import optimizer  # noqa: PLC0415  (it takes seconds, and logs)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save_model(model, path)
        logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
        made = optimizer.optimize_model(str(path), model_type=kind, num_heads=0, hidden_size=0, opt_level=0)
        return made.model


def operators(model: onnx.ModelProto) -> Counter[str]:
    """Count the operators of a model, those of bodies and functions too."""
    graphs = [model.graph.node, *(function.node for function in model.functions)]
    return Counter(node.op_type for nodes in graphs for node in _all_nodes(nodes))


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _all_nodes(graph.node)


def differences(dense: onnx.ModelProto, pruned: onnx.ModelProto, level: str) -> dict[str, tuple[int, int]]:
    """Return the operators whose numbers differ after optimisation at `level`."""
    before, after = (operators(optimised(model, level)) for model in (dense, pruned))
    return {op: (before[op], after[op]) for op in sorted(before | after) if before[op] != after[op]}


def obstacles(found: Mapping[str, tuple[int, int]], biases: int) -> dict[str, tuple[int, int]]:
    """Return of the `differences` those that cost time: more nodes of a kind than before, or fewer fused ones.

    A node and its fused form count as one kind, views as one too, and biases that recovery added may stay as so many
    nodes Add.
    """
    worse = {op: counts for op, counts in found.items() if op in FUSED and counts[1] < counts[0]}
    kinds: dict[str, list[int]] = {}
    for op, counts in found.items():
        total = kinds.setdefault((FUSED | VIEWS).get(op, op), [0, 0])
        total[:] = total[0] + counts[0], total[1] + counts[1]
    more = {op: (before, after) for op, (before, after) in kinds.items() if after > before + biases * (op == "Add")}
    return worse | more


def prune_entry(entry: Entry, options: Options) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return a network of the zoo, dense and pruned."""
    model = refill(read_skeleton(ZOO / "skeletons" / f"{entry.name}.onnx.xz"))
    data = [entry.feeds(0, seed=seed) for seed in range(BATCHES)]
    return model, prune(model, data, options).model


def options_of(recovery: str, units: float, normalised: bool) -> Options:
    return Options(
        Target("units", units), select="magnitude", recovery=recovery, one_pass=recovery != "exact", batch_size=4,
        threads=1, prune_normalised=normalised,
    )  # fmt: skip


def pairs(arguments: argparse.Namespace, options: Options) -> Iterator[tuple[str, Any]]:
    """Yield names, and functions that return a dense and a pruned model."""
    if arguments.model:
        dense = load_model(arguments.model)
        yield arguments.model, lambda: (dense, prune(dense, arguments.calib, options).model)
        return
    for entry in read_entries(ZOO / "zoo.json"):
        if not arguments.names or entry.name in arguments.names:
            yield entry.name, lambda entry=entry: prune_entry(entry, options)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="entries of the zoo; all by default")
    parser.add_argument("--model", help="another model instead")
    parser.add_argument("--calib", help="its calibration data")
    parser.add_argument("--recovery", default="channel", help="channel (default), exact or none")
    parser.add_argument("--units", type=float, default=0.75, help="share of the units that stay (0.75)")
    parser.add_argument("--prune-normalised", action="store_true", help="shrink normalised axes too")
    parser.add_argument("--levels", default="none,extended,all", help="of optimisation (none,extended,all)")
    chosen = parser.parse_args(arguments)
    options = options_of(chosen.recovery, chosen.units, chosen.prune_normalised)
    same = different = failed = 0
    for name, make in pairs(chosen, options):
        try:
            dense, pruned = make()
            found = {level: differences(dense, pruned, level) for level in chosen.levels.split(",")}
        except Exception:
            failed += 1
            print(f"{name}: {traceback.format_exc().splitlines()[-1]}", flush=True)
            continue
        told = {level: counts for level, counts in found.items() if level != "none" and counts}
        same, different = same + (not told), different + bool(told)
        for level, counts in found.items():
            shown = ", ".join(f"{op} {before}>{after}" for op, (before, after) in counts.items())
            if told and shown:
                print(f"{name} [{level}] {shown}", flush=True)
    print(f"{same} the same, {different} different, {failed} failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
