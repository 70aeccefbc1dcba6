"""What a source of networks offers: how to build one, and the inputs to export and run it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zoo.entries import Input

__all__ = ["BOTH", "DYNAMO", "DYNAMO_23", "TORCHSCRIPT", "Recipe", "image", "tokens"]

TORCHSCRIPT, DYNAMO, DYNAMO_23 = "ts17", "dynamo18", "dynamo23"
BOTH = (TORCHSCRIPT, DYNAMO)

Sizes = dict[str, int]


@dataclass(frozen=True)
class Recipe:
    """A PyTorch network to export.

    Attributes:
        architecture: name of the entries, before the exporter's suffix.
        family: kind of network.
        package: that defines it.
        title: the class or call, as a reader would look it up.
        build: makes the module; only called when the entry is made.
        inputs: in the order of `forward`'s parameters, or by the names in `keywords`.
        sizes: two sets of sizes of the dynamic axes; the first is exported with.
        exporters: to write entries with.
        output: picks the tensors to export out of what the module returns.

    """

    architecture: str
    family: str
    package: str
    title: str
    build: Callable[[], Any]
    inputs: tuple[Input, ...]
    sizes: tuple[Sizes, Sizes]
    exporters: tuple[str, ...] = BOTH
    keywords: bool = False
    output: Callable[[Any], Any] | None = field(default=None)


def image(side: int, second: int | None = None, channels: int = 3) -> tuple[tuple[Input, ...], tuple[Sizes, Sizes]]:
    """Return the input and sizes of an image network; with `second`, height and width are dynamic too."""
    if second is None:
        return (Input("image", ("batch", channels, side, side)),), ({"batch": 2}, {"batch": 3})
    shape = ("batch", channels, "height", "width")
    sizes = ({"batch": 2, "height": side, "width": side}, {"batch": 1, "height": second, "width": side})
    return (Input("image", shape),), sizes


def tokens(vocabulary: int, mask: bool = True) -> tuple[tuple[Input, ...], tuple[Sizes, Sizes]]:
    """Return the inputs and sizes of a language model."""
    ids = Input("input_ids", ("batch", "sequence"), "int64", vocabulary)
    attended = Input("attention_mask", ("batch", "sequence"), "int64", 2)
    return (ids, attended) if mask else (ids,), ({"batch": 2, "sequence": 12}, {"batch": 3, "sequence": 7})
