"""Networks through PyTorch's two exporters, with weights that leave nothing constant by chance."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from torch import nn

from zoo.entries import Entry
from zoo.recipes import DYNAMO, DYNAMO_23, TORCHSCRIPT, Recipe

__all__ = ["Offer", "export", "offers_of", "randomise"]

Offer: TypeAlias = tuple[Entry, Callable[[], onnx.ModelProto]]

OPSETS = {TORCHSCRIPT: 17, DYNAMO: 18, DYNAMO_23: 23}


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Give every parameter and statistic that its initialisation left constant values of its own.

    Biases of zero and scales of one would make a wrong slice of them invisible, and exporters fold some of them away.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if not value.is_floating_point() or value.numel() < 2:
                continue
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif name.endswith("running_mean") or (isinstance(value, nn.Parameter) and value.unique().numel() == 1):
                around = 1.0 if name.endswith(("weight", "gamma", "scale")) and value.ndim == 1 else 0.0
                value.copy_(around + 0.1 * torch.randn(value.shape, generator=generator))


class _Flat(nn.Module):
    """Positional inputs in, a tuple of tensors out; by keyword where the network wants it so."""

    def __init__(self, module: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.module = module
        self._names = [each.name for each in recipe.inputs] if recipe.keywords else None
        self._output = recipe.output

    def _run(self, *inputs: torch.Tensor) -> Any:
        if self._names is None:
            found = self.module(*inputs)
        else:
            found = self.module(**dict(zip(self._names, inputs, strict=True)))
        return _tensors(found if self._output is None else self._output(found))


class _One(_Flat):
    def forward(self, a: torch.Tensor) -> Any:
        return self._run(a)


class _Two(_Flat):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> Any:
        return self._run(a, b)


class _Three(_Flat):
    def forward(self, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> Any:
        return self._run(a, b, c)


class _Six(_Flat):
    def forward(
        self,
        a: torch.Tensor,
        b: torch.Tensor,
        c: torch.Tensor,
        d: torch.Tensor,
        e: torch.Tensor,
        f: torch.Tensor,
    ) -> Any:
        return self._run(a, b, c, d, e, f)


_WRAPPERS = {1: _One, 2: _Two, 3: _Three, 6: _Six}


def _tensors(found: Any) -> Any:
    """Return one tensor, or a tuple of the tensors in nested tuples, lists and dictionaries."""
    if isinstance(found, torch.Tensor):
        return found
    values = found.values() if hasattr(found, "values") else found
    flat: list[torch.Tensor] = []
    for value in values:
        inner = _tensors(value)
        flat.extend([inner] if isinstance(inner, torch.Tensor) else inner)
    return tuple(flat)


def export(recipe: Recipe, exporter: str) -> onnx.ModelProto:
    """Build a network and export it."""
    torch.manual_seed(0)
    module = recipe.build().eval()
    randomise(module)
    wrapped = _WRAPPERS[len(recipe.inputs)](module, recipe).eval()
    generator = np.random.default_rng(0)
    arguments = tuple(torch.from_numpy(each.draw(recipe.sizes[0], generator)) for each in recipe.inputs)
    names = [each.name for each in recipe.inputs]
    torch.backends.mha.set_fastpath_enabled(False)  # the fused operator has no ONNX form
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        found = wrapped(*arguments)
        outputs = [f"output{i}" for i in range(1 if isinstance(found, torch.Tensor) else len(found))]
        write = _torchscript if exporter == TORCHSCRIPT else partial(_dynamo, OPSETS[exporter])
        return write(recipe, wrapped, arguments, names, outputs)


def _axes(recipe: Recipe) -> dict[str, dict[int, str]]:
    return {each.name: {i: s for i, s in enumerate(each.shape) if isinstance(s, str)} for each in recipe.inputs}


def _torchscript(
    recipe: Recipe,
    module: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        arguments,
        buffer,
        dynamo=False,
        opset_version=OPSETS[TORCHSCRIPT],
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes=_axes(recipe),
    )
    return onnx.ModelProto.FromString(buffer.getvalue())


def _dynamo(
    opset: int,
    recipe: Recipe,
    module: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    shapes = tuple(_axes(recipe)[name] for name in inputs)
    program = torch.onnx.export(
        module,
        arguments,
        dynamo=True,
        opset_version=opset,
        verbose=False,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=shapes,
    )
    return program.model_proto


def offers_of(recipes: Iterable[Recipe]) -> Iterator[Offer]:
    """Yield an entry per recipe and exporter, with what makes its model."""
    for recipe in recipes:
        for exporter in recipe.exporters:
            kind = "TorchScript" if exporter == TORCHSCRIPT else "dynamo"
            source = {
                "package": recipe.package,
                "version": version(recipe.package) if recipe.package != "own" else "",
                "class": recipe.title,
                "exporter": f"torch {version('torch').split('+')[0]} {kind}",
                "opset": str(OPSETS[exporter]),
            }
            name = f"{recipe.architecture}_{exporter}"
            entry = Entry(name, recipe.architecture, recipe.family, source, recipe.inputs, recipe.sizes)
            yield entry, partial(export, recipe, exporter)
