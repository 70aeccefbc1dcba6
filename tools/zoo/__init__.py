"""The zoo: graphs that real exporters wrote, with the weights taken out."""

from zoo.entries import Entry, Input, read_entries, write_entries
from zoo.skeleton import count_parameters, read_skeleton, refill, strip, write_skeleton

__all__ = [
    "Entry", "Input", "count_parameters", "read_entries", "read_skeleton", "refill", "strip", "write_entries",
    "write_skeleton",
]  # fmt: skip
