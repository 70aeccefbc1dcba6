"""The rivals, driven to the MACs (or parameters) of a budget by a search over the one share they take.

A rival removes the same share of the channels of every layer it understands. The share is found by bisection: what is
left falls as it grows, in steps, for whole channels go. A rival that cannot get as small as asked has no figure.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from accuracy.child import Child
from accuracy.figures import Figure
from accuracy.methods import ONNXSIM, Method
from accuracy.networks import Budget, Network, Opened
from onnx_subprune.calibration import Dataset
from onnx_subprune.errors import SubpruneError
from onnx_subprune.model import input_specs, load_model, open_session, run
from onnx_subprune.network.analysis import analyse
from onnx_subprune.options import Target

__all__ = ["NoResultError", "Pythons", "Task", "onnxsim", "rival", "search"]

logger = logging.getLogger(__name__)

# The search ends NEAR what is asked, or at shares so FINE that hardly a channel moves; then what came nearest counts,
# for the table says its size, unless it is FAR off.
NEAR, FAR, FINE, STEPS, SECONDS = 0.0025, 0.03, 1e-3, 12, 1200
# Examples that a rebuilt network is held to; for a language model, of so many tokens with ids below IDS.
SHOWN, TOKENS, IDS = 8, 32, 1000
# Inputs of text encoders beside the ids, and what they hold all over.
BESIDE = (("attention_mask", 1), ("token_type_ids", 0))
HERE = Path(__file__).resolve().parent
Prune = Callable[[float, Path], str]


@dataclass(frozen=True)
class Pythons:
    """Interpreters of environments that have the rivals."""

    onnxsim: str | None = None
    torch: str | None = None


class NoResultError(Exception):
    """A rival has no result; the message is for the page."""


@dataclass(frozen=True)
class Task:
    """What a rival is to do, and where its files lie."""

    opened: Opened
    method: Method
    budget: Budget
    feeds: tuple[Path, ...]
    folder: Path


def rival(
    network: Network, opened: Opened, method: Method, budget: Budget, data: Dataset | None, pythons: Pythons
) -> Figure:
    """Prune by a rival to the size of a budget, and measure."""
    with tempfile.TemporaryDirectory() as name:
        task = Task(opened, method, budget, _written(data, network.batch, Path(name)), Path(name))
        opening = onnxsim(task, pythons.onnxsim) if method.program == ONNXSIM else _torch(task, pythons.torch)
        try:
            with opening as (prune, probe):
                model, share = search(task, prune, probe)
            metric = opened.evaluate(model)
        except (NoResultError, SubpruneError) as error:
            return Figure(None, note=str(error).splitlines()[0][:200])
    dense, small = opened.cost(opened.model), opened.cost(model)
    extra = {"ratio": round(share, 5)}
    return Figure(metric, small.macs / dense.macs, small.parameters / dense.parameters, extra=extra)


def _written(data: Dataset | None, batch: int, folder: Path) -> tuple[Path, ...]:
    """Calibration data as a file for each batch."""
    files = []
    for number, feeds in enumerate(data.batches(batch) if data is not None else ()):
        files.append(folder / f"feeds{number}.npz")
        np.savez(files[-1], **feeds)
    return tuple(files)


def search(task: Task, prune: Prune, probe: Prune) -> tuple[onnx.ModelProto, float]:
    """Return the model nearest to the budget, and the share that was removed of each layer.

    Sizes are those that `probe` makes, which may be quicker than `prune` and takes as many channels.
    """
    share, expected = _nearest(task, probe)
    path = task.folder / "chosen.onnx"
    if fault := prune(share, path):
        raise NoResultError(fault)
    model = load_model(path)
    if abs(_left(task, model) - expected) > NEAR:
        raise NoResultError("removes another number of channels by activations than by weights")
    return model, share


def _left(task: Task, model: onnx.ModelProto) -> float:
    """The share of the MACs or parameters."""
    costs = [task.opened.cost(each) for each in (model, task.opened.model)]
    small, dense = (each.macs if task.budget.equal.kind == "macs" else each.parameters for each in costs)
    return small / dense


def _nearest(task: Task, prune: Prune) -> tuple[float, float]:
    """Return the share to remove that comes nearest to the budget, and what it leaves."""
    budget = task.budget
    low, high = 0.0, 1.0
    share = 1 - budget.target.value ** (1.0 if budget.target.kind == "units" else 0.5)
    tried: dict[float, float] = {}
    for _ in range(STEPS):
        path = task.folder / "probe.onnx"
        if fault := prune(share, path):
            raise NoResultError(fault)
        left = tried[share] = _left(task, load_model(path))
        logger.info("  share %.4f leaves %.4f", share, left)
        low, high = (share, high) if left > budget.equal.value else (low, share)
        if abs(left - budget.equal.value) <= NEAR or high - low < FINE:
            break
        share = (low + high) / 2
    best = min(tried, key=lambda each: abs(tried[each] - budget.equal.value))
    if abs(tried[best] - budget.equal.value) > FAR:
        raise NoResultError(_short(min(tried.values()), budget.equal))
    return best, tried[best]


def _short(least: float, asked: Target) -> str:
    if least > 1 - NEAR:
        return "removes nothing of this network"
    word = "MACs" if asked.kind == "macs" else "parameters"
    return f"leaves {least:.2f} of the {word} at least, {asked.value:.2f} was asked for"


@contextmanager
def onnxsim(task: Task, python: str | None) -> Iterator[tuple[Prune, Prune]]:
    if python is None:
        raise SystemExit("expected --rival, the Python of an environment that has onnxsim, found none")
    dense = task.folder / "dense.onnx"
    onnx.save(task.opened.model, dense)
    mode = task.method.settings["mode"]
    with Child([python, str(HERE / "onnxsim_child.py"), str(dense), *map(str, task.feeds)], SECONDS) as child:

        def prune(share: float, out: Path, mode: str = mode) -> str:
            return child.ask({"mode": mode, "sparsity": share, "out": str(out)})

        yield prune, partial(prune, mode="norm")


@contextmanager
def _torch(task: Task, python: str | None) -> Iterator[tuple[Prune, Prune]]:
    if python is None:
        raise SystemExit("expected --torch, the Python of an environment that has torch_pruning, found none")
    dense, examples = task.folder / "dense.onnx", task.folder / "examples.npz"
    model = _of_one_input(analyse(task.opened.model, task.opened.shapes).normalised)
    onnx.save(model, dense)
    _write_examples(task.opened, model, examples)
    request = {"p": task.method.settings["p"], "layers": _layers(task)}
    with Child([python, str(HERE / "torch_child.py"), str(dense), str(examples)], SECONDS) as child:

        def prune(share: float, out: Path) -> str:
            return child.ask({**request, "ratio": share, "out": str(out)})

        yield prune, prune


def _of_one_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """A text encoder reading ids alone: no sentence of the benchmark is padded, and each is one segment."""
    for name, filling in BESIDE:
        found = next((each for each in model.graph.input if each.name == name), None)
        if found is None:
            continue
        model.graph.input.remove(found)
        size, like = f"{name}/size", onnx.numpy_helper.from_array(np.array([filling], np.int64))
        model.graph.node.insert(0, onnx.helper.make_node("ConstantOfShape", [size], [name], name, value=like))
        model.graph.node.insert(0, onnx.helper.make_node("Shape", [model.graph.input[0].name], [size], size))
    return model


def _write_examples(opened: Opened, model: onnx.ModelProto, path: Path) -> None:
    """Inputs, and what ONNX Runtime makes of them."""
    (spec,) = input_specs(model)
    draw, shape = np.random.default_rng(0), opened.shapes[spec.name]
    if spec.dtype.kind == "f":
        given = draw.standard_normal((SHOWN, *shape[1:])).astype(spec.dtype)
    else:
        given = draw.integers(0, IDS, (SHOWN, TOKENS)).astype(spec.dtype)
    (output, *_) = run(open_session(model), {spec.name: given}).values()
    np.savez(path, input=given, output=output)


def _layers(task: Task) -> list[str] | None:
    """The ONNX nodes whose layers may lose channels; None for all."""
    if task.budget.only is not None:
        return list(task.opened.groups(task.budget.only))
    return list(task.opened.inner()) if task.method.settings.get("inner") else None
