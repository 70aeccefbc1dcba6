"""Evaluation: how close to the dense model, how accurate, how fast and where the time goes."""

from onnx_subprune.evaluate.bench import Latency, Pace, bench
from onnx_subprune.evaluate.feeds import random_feeds
from onnx_subprune.evaluate.fidelity import Fidelity, OutputFidelity, fidelity
from onnx_subprune.evaluate.memory import Memory, peak_memory
from onnx_subprune.evaluate.perplexity import Perplexity, perplexity
from onnx_subprune.evaluate.runtime_profile import NodeTime, OperatorTime, Profile, profile
from onnx_subprune.evaluate.top1 import Top1, top1

__all__ = [
    "Fidelity",
    "Latency",
    "Memory",
    "NodeTime",
    "OperatorTime",
    "OutputFidelity",
    "Pace",
    "Perplexity",
    "Profile",
    "Top1",
    "bench",
    "fidelity",
    "peak_memory",
    "perplexity",
    "profile",
    "random_feeds",
    "top1",
]
