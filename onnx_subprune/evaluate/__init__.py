"""Evaluation: how close to the dense model, how accurate, how fast."""

from onnx_subprune.evaluate.bench import Latency, bench, random_feeds
from onnx_subprune.evaluate.fidelity import Fidelity, OutputFidelity, fidelity
from onnx_subprune.evaluate.perplexity import Perplexity, perplexity
from onnx_subprune.evaluate.top1 import Top1, top1

__all__ = [
    "Fidelity",
    "Latency",
    "OutputFidelity",
    "Perplexity",
    "Top1",
    "bench",
    "fidelity",
    "perplexity",
    "random_feeds",
    "top1",
]
