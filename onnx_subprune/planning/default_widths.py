"""Which multiples of units widths keep where the user did not say: those that kernels are known to be fast at.

Kernels work on blocks of channels. ONNX Runtime lays the feature maps of a CPU out in blocks of 8 or 16 channels and
multiplies matrices in panels of 16 columns; tensor cores read 16 bytes at a time. A layer that does not fill its last
block takes the time of one that does, and often more, because other kernels run. So widths are multiples of eight, and
of less only where a layer is too narrow for them or the target could not be met. They depend on the model and the
options alone, never on the machine: the same run gives the same bytes everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import onnx

from onnx_subprune.model import has_half
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options
from onnx_subprune.planning.allocation import relative_cost
from onnx_subprune.structure import Group, Structure

__all__ = ["default_multiple", "least_cuts", "width_steps"]

_FAST_KINDS = ("macs", "drop")
"""Targets whose widths are fast ones by default. Others count bytes or units, or measure what is fast themselves."""

_BLOCK = 8
_GPUS = ("cuda", "tensorrt", "nvtensorrt", "rocm", "migraphx", "dml")
# Tensor cores read 16 bytes at a time: 8 numbers in half precision, 4 in single.
_SINGLE_ON_GPU = 4
_BLOCKS = 4
"""Layers of fewer blocks may lose less than one where the widths are not multiples: a target is met more closely."""
_ROOM = 0.5
"""So much of the target may the smallest widths cost: a budget that leaves no choice between groups is no good one."""


def default_multiple(model: onnx.ModelProto, options: Options) -> int:
    """Return the multiple of channels that widths keep where the options do not say.

    Args:
        model: the dense network, whose precision counts on an accelerator.
        options: the target, its cost, and where the network runs.

    """
    if options.target.kind not in _FAST_KINDS or options.cost not in (None, "macs"):
        return 1
    return _block(model, options)


def _block(model: onnx.ModelProto, options: Options) -> int:
    """Return the channels that kernels take at a time."""
    on_gpu = any(provider.lower().startswith(_GPUS) for provider in options.providers)
    return _SINGLE_ON_GPU if on_gpu and not has_half(model) else _BLOCK


def width_steps(analysis: Analysis, groups: Sequence[Group], options: Options) -> dict[str, int]:
    """Return the multiple of units that the widths of every group keep, by its name.

    By default a group of fewer than two blocks keeps multiples of a half or a quarter of one, and all groups do where
    the target would leave no room otherwise.

    Args:
        analysis: of the dense network.
        groups: that may be pruned.
        options: `round_to`, and the target.

    """
    if options.multiple is not None:
        return {group.name: _units(options.multiple, group) for group in groups}
    steps: dict[str, int] = {}
    for multiple in _halves(default_multiple(analysis.model, options)):
        steps = {group.name: _narrowed(_units(multiple, group), group.size) for group in groups}
        if multiple == 1 or _leaves_room(analysis.structure, groups, steps, options):
            break
    return steps


def least_cuts(analysis: Analysis, groups: Sequence[Group], options: Options) -> dict[str, int]:
    """Return how many units of every group may go at least, by its name: a cut of less than a block buys no time.

    Args:
        analysis: of the dense network.
        groups: that may be pruned.
        options: `round_to`, and the target: shares of units or of variance are taken at their word.

    """
    if options.multiple is not None or options.target.kind in ("units", "variance"):
        return {group.name: 1 for group in groups}
    blocks = {group: _units(_block(analysis.model, options), group) for group in groups}
    return {group.name: block if group.size >= _BLOCKS * block else 1 for group, block in blocks.items()}


def _halves(multiple: int) -> Iterator[int]:
    while multiple > 1:
        yield multiple
        multiple //= 2
    yield 1


def _units(multiple: int, group: Group) -> int:
    """Return a multiple of channels in units: a unit may be many entries of an axis (an attention head)."""
    return multiple // math.gcd(multiple, group.entries)


def _narrowed(step: int, size: int) -> int:
    """Return the step, halved until a group of that size has a width between one step and all."""
    while step > 1 and 2 * step > size:
        step //= 2
    return step


def _leaves_room(structure: Structure, groups: Sequence[Group], steps: Mapping[str, int], options: Options) -> bool:
    """Whether the smallest widths are far enough below the target for a choice between groups."""
    if options.target.kind != "macs":
        return True
    smallest = {group.name: min(steps[group.name], group.size) for group in groups}
    return relative_cost(structure, options.target)(smallest) <= _ROOM * options.target.value
