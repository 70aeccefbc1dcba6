"""A rival is driven to the size asked for; what it cannot do is a reason for the page."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from accuracy.child import Child
from accuracy.methods import METHODS
from accuracy.networks import Budget, Opened
from accuracy.rivals import NoResultError, Task, search

from onnx_subprune.options import Target

WIDTH = 400
ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request == "die":
        break
    print(json.dumps(f"heard {request}"), flush=True)
"""


def network(width: int) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,8] x) => (float[1,8] y) {
          h = MatMul(x, first)
          y = MatMul(h, second)
        }
        """
    )
    for name, shape in (("first", (8, width)), ("second", (width, 8))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return model


def task(folder: Path, share: float) -> Task:
    opened = Opened(network(WIDTH), {"x": (1, 8)}, lambda *_: None, lambda _: 0.0)
    return Task(opened, METHODS["torch-l1"], Budget("half", Target("macs", share)), (), folder)


def cut(share: float, path: Path) -> str:
    onnx.save(network(WIDTH - int(WIDTH * share)), path)
    return ""


@pytest.mark.parametrize("asked", [0.7, 0.5, 0.31])
def test_the_size_comes_out(tmp_path: Path, asked: float) -> None:
    model, share = search(task(tmp_path, asked), cut, cut)
    assert abs(model.graph.initializer[0].dims[1] / WIDTH - asked) <= 0.0026
    assert share == pytest.approx(1 - asked, abs=0.005)


def test_what_stays_whole_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoResultError, match="removes nothing of this network"):
        search(task(tmp_path, 0.5), cut, lambda _, path: cut(0.0, path))


def test_what_does_not_get_as_small_says_how_far_it_got(tmp_path: Path) -> None:
    with pytest.raises(NoResultError, match=r"leaves 0\.60 of the MACs at least, 0\.50 was asked for"):
        search(task(tmp_path, 0.5), cut, lambda share, path: cut(min(share, 0.4), path))


def test_a_probe_that_misleads_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(NoResultError, match="another number of channels"):
        search(task(tmp_path, 0.5), lambda share, path: cut(share / 2, path), cut)


@pytest.mark.parametrize("probe", [cut, lambda *_: "RuntimeError: no such layer"])
def test_the_words_of_a_failure_are_kept(tmp_path: Path, probe: Callable[[float, Path], str]) -> None:
    with pytest.raises(NoResultError, match="RuntimeError: no such layer"):
        search(task(tmp_path, 0.5), lambda *_: "RuntimeError: no such layer", probe)


def test_a_child_answers_dies_and_is_late() -> None:
    with Child([sys.executable, "-c", ECHO], 30) as child:
        assert child.ask({"a": 1}) == "heard {'a': 1}"
        assert child.ask("die") == "the process died"
        assert child.ask("again") == "the process died"
    with Child([sys.executable, "-c", "import time; time.sleep(30)"], 1) as child:
        assert child.ask(1) == "not done after 1 s"
