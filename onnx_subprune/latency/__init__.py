"""Latency on this machine: which widths are fast, and what a network takes at any widths."""

from onnx_subprune.latency.cache import Record, cache_folder, kept, machine
from onnx_subprune.latency.families import FAMILIES, families_of, family_of
from onnx_subprune.latency.latency_model import LatencyModel
from onnx_subprune.latency.layer_chains import Sizes, chain
from onnx_subprune.latency.multiples import Decision, decided, measured_multiples
from onnx_subprune.latency.timing import Effort, Times, take_turns, times

__all__ = [
    "FAMILIES",
    "Decision",
    "Effort",
    "LatencyModel",
    "Record",
    "Sizes",
    "Times",
    "cache_folder",
    "chain",
    "decided",
    "families_of",
    "family_of",
    "kept",
    "machine",
    "measured_multiples",
    "take_turns",
    "times",
]
