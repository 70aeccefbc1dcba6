"""Documents as JSON, curves as pictures and an environment as figures: each against a plain second way."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.report import environment as module
from onnx_subprune.report import to_json
from onnx_subprune.report.environment import examine, versions
from onnx_subprune.report.loss_panels import HEADROOM, HEIGHT, WIDTH, panels

FEW = settings(max_examples=25, deadline=None)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text('aé\n<"\u2028'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


def without_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_infinities(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_infinities(entry) for entry in value]
    return None if isinstance(value, float) and (math.isnan(value) or math.isinf(value)) else value


@FEW
@given(st.dictionaries(st.text("ab"), PLAIN, max_size=4))
def test_what_is_read_back_is_what_was_written_but_for_infinities(document: dict[str, Any]) -> None:
    text = to_json(document)
    assert text.endswith("}\n")
    assert json.loads(text) == without_infinities(document)
    assert list(json.loads(text)) == list(document), "the order is kept"


@pytest.mark.parametrize("value", [object(), {1, 2}, np.float32(1.0), np.arange(2), 1j])
def test_what_is_no_plain_data_is_not_written_as_something_else(value: Any) -> None:
    with pytest.raises(TypeError):
        to_json({"value": value})


def test_numbers_of_sizes_are_keys_in_their_order() -> None:
    assert json.loads(to_json({8: "a", 16: ("b", float("-inf"))})) == {"8": "a", "16": ["b", None]}


SQUARES = st.lists(st.floats(0, 100), min_size=2, max_size=9)


@FEW
@given(st.lists(st.tuples(SQUARES, st.integers(0, 8)), min_size=1, max_size=5))
def test_panels_share_a_scale_and_stay_within_their_picture(curves: list[tuple[list[float], int]]) -> None:
    groups = [
        {
            "name": f"g{number}",
            "units": len(loss) - 1,
            "kept": min(kept, len(loss) - 1),
            "curve": {"kept": list(range(len(loss))), "loss": [*sorted(loss[:-1], reverse=True), 0.0]},
        }
        for number, (loss, kept) in enumerate(curves)
    ]
    drawn = {panel.name: panel for panel in panels(groups, "consumers")}
    taken = {group["name"]: math.sqrt(group["curve"]["loss"][group["kept"]]) for group in groups}
    assert [taken[name] for name in drawn] == sorted(taken.values(), reverse=True)
    highest = math.sqrt(max(max(group["curve"]["loss"]) for group in groups))
    top = min(highest, HEADROOM * max(taken.values())) or highest or 1.0
    for group in groups:
        panel = drawn[group["name"]]
        assert panel.x == round(WIDTH * group["kept"] / group["units"], 1)
        assert panel.y == pytest.approx(HEIGHT * (1 - taken[panel.name] / top), abs=0.051)
        points = [tuple(map(float, point.split())) for point in panel.path.removeprefix("M").split("L")]
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
        assert points[-1] == (WIDTH, HEIGHT), "the whole group loses nothing"
        assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_versions_are_those_of_the_modules() -> None:
    installed = versions()
    assert installed["numpy"] == np.__version__
    assert installed["onnx"] == onnx.__version__
    assert list(installed)[:2] == ["python", "onnx-subprune"]
    assert "ort-nightly" not in installed


class Runtime:
    """A runtime that reads up to an opset and an IR version, with the providers that load."""

    def __init__(self, opset: int, ir_version: int, loads: tuple[str, ...]) -> None:
        self._opset, self._ir_version, self._loads = opset, ir_version, loads
        self.opened = 0

    def open_session(self, model: onnx.ModelProto, providers: list[str]) -> None:
        self.opened += 1
        onnx.checker.check_model(model)
        if model.opset_import[0].version > self._opset or model.ir_version > self._ir_version:
            raise ModelError("it is too new")
        if providers[0] not in self._loads:
            raise OptionError(f"provider '{providers[0]}' did not load: no driver")


def with_runtime(monkeypatch: pytest.MonkeyPatch, runtime: Runtime) -> None:
    monkeypatch.setattr(module, "open_session", runtime.open_session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])


def test_the_newest_that_is_read_is_found_and_providers_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with_runtime(monkeypatch, Runtime(17, 9, ("cpu", "CPUExecutionProvider")))
    environment = examine()
    assert (environment.opset, environment.ir_version) == (17, 9)
    assert environment.providers == {
        "CUDAExecutionProvider": "provider 'CUDAExecutionProvider' did not load: no driver",
        "CPUExecutionProvider": None,
    }
    assert environment.problems == []
    assert environment.versions == versions()


def test_a_runtime_that_reads_nothing_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    with_runtime(monkeypatch, Runtime(0, 0, ()))
    environment = examine()
    assert (environment.opset, environment.ir_version) == (None, None)
    assert environment.problems == ["expected ONNX Runtime to run on the CPU, found: it is too new; install it again"]


def test_two_builds_are_named_in_one_order(monkeypatch: pytest.MonkeyPatch) -> None:
    with_runtime(monkeypatch, Runtime(17, 9, ("cpu", "CPUExecutionProvider")))
    builds = {"onnxruntime-gpu": "1.20", "python": "3.12", "onnxruntime": "1.21", "numpy": "2.0"}
    monkeypatch.setattr(module, "versions", lambda: builds)
    environment = examine()
    assert environment.runtimes == ("onnxruntime", "onnxruntime-gpu")
    assert "run 'pip uninstall onnxruntime onnxruntime-gpu', then install one of them" in environment.problems[0]
