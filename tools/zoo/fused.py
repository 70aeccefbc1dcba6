"""Attention and more in one operator: graphs that ONNX Runtime's optimisers write, and ONNX's own operator."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
import onnxruntime as ort

from zoo import own_attention
from zoo.entries import Entry, Input, read_entries
from zoo.export import Offer, export, offers_of
from zoo.recipes import DYNAMO_23, TORCHSCRIPT, Recipe, Sizes
from zoo.skeleton import read_skeleton, refill

__all__ = ["offers"]

ZOO = Path(__file__).resolve().parents[2] / "tests" / "zoo"
SEQUENCES: tuple[Sizes, Sizes] = ({"batch": 2, "sequence": 12}, {"batch": 3, "sequence": 7})
# Entry to start from, and the model type that the optimiser for transformers is told; None: the session's own.
OPTIMISED = (
    ("gpt2_ts17", "gpt2"),
    ("clip_ts17", "clip"),
    ("llama_ts17", "gpt2"),
    ("bert_ts17", None),
    ("resnet18_ts17", None),
)


def _classic() -> Recipe:
    inputs = tuple(
        Input(name, ("batch", "sequence"), "int64", high)
        for name, high in (("ids", 96), ("segments", 2), ("attended", 2))
    )
    build = own_attention.ClassicBert
    return Recipe("bert_classic", "text encoder", "own", "ClassicBert", build, inputs, SEQUENCES, (TORCHSCRIPT,))


def _decoders() -> Iterator[Recipe]:
    states = (Input("states", ("batch", "sequence", 32)),)
    for name, shared in (("attention", 1), ("grouped_attention", 2)):
        build = partial(own_attention.Decoder, shared=shared)
        yield Recipe(name, "language model", "own", "Decoder", build, states, SEQUENCES, (DYNAMO_23,))


def _transformers(make: Callable[[], onnx.ModelProto], kind: str, multi_head: bool = False) -> onnx.ModelProto:
    """Return a model after onnxruntime.transformers.optimizer, without the session's own optimisations."""
    from onnxruntime.transformers.fusion_options import FusionOptions  # noqa: PLC0415 - needs sympy
    from onnxruntime.transformers.optimizer import optimize_model  # noqa: PLC0415

    options = FusionOptions(kind)
    options.use_multi_head_attention = multi_head
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(make(), path)
        found = optimize_model(str(path), kind, num_heads=0, hidden_size=0, optimization_options=options, opt_level=0)
        found.save_model_to_file(str(path))
        return onnx.load(path)


def _session(make: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """Return a model as a session of ONNX Runtime writes it at the level `extended`."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(make().SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _filled(name: str) -> onnx.ModelProto:
    return refill(read_skeleton(ZOO / "skeletons" / f"{name}.onnx.xz"))


def _entry(start: Entry, name: str, what: str) -> Entry:
    exporter = f"onnxruntime {what} {ort.__version__}"
    return replace(start, name=name, source={**start.source, "exporter": exporter})


def offers() -> Iterator[Offer]:
    """Yield an entry per optimised network, and those that hold ONNX's Attention."""
    yield from offers_of(_decoders())
    recipe = _classic()
    ((classic, _),) = offers_of([recipe])
    for multi_head in (False, True):
        name = "bert_classic_mha_ort17" if multi_head else "bert_classic_ort17"
        make = partial(_transformers, partial(export, recipe, TORCHSCRIPT), "bert", multi_head)
        yield _entry(classic, name, "optimizer"), make
    known = {entry.name: entry for entry in read_entries(ZOO / "zoo.json")}
    for start, kind in OPTIMISED:
        name = f"{known[start].architecture}_{'session' if kind is None else 'ort'}17"
        fill = partial(_filled, start)
        make = partial(_session, fill) if kind is None else partial(_transformers, fill, kind)
        yield _entry(known[start], name, "session" if kind is None else "optimizer"), make
