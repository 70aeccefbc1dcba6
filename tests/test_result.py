"""The outcome of a pruning as data, text and files: figures against those of the models themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.budget import Curve, Trial
from onnx_subprune.errors import DataError, OptionError, OutputError
from onnx_subprune.evaluate.comparison import Measured
from onnx_subprune.model import measure_cost
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import prune
from onnx_subprune.planning.drop_search import Drop
from onnx_subprune.planning.latency import LatencyMet
from onnx_subprune.recovery.exact import Refit
from onnx_subprune.report import to_json
from onnx_subprune.result import Result, _losses

DATA = np.random.default_rng(1).standard_normal((100, 6)).astype(np.float32)


def network() -> onnx.ModelProto:
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        three (float[N, 6] x) => (float[N, 3] y) {
            a = MatMul(x, w1)  b = Relu(a)  c = MatMul(b, w2)  d = Relu(c)  y = MatMul(d, w3)
        }
    """)
    generator = np.random.default_rng(0)
    for name, shape in (("w1", (6, 10)), ("w2", (10, 8)), ("w3", (8, 3))):
        values = generator.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return proto


@pytest.fixture(scope="module")
def result() -> Result:
    options = Options.of_effort("fast", target=Target.parse("units=0.5"), threads=1)
    return prune(network(), {"x": DATA}, options)


@pytest.fixture(scope="module")
def document(result: Result) -> dict[str, Any]:
    return result.document(command=["prune"], source="x.npz")


def met(**entries: Any) -> LatencyMet:
    figures: dict[str, Any] = {
        "predicted": 0.5, "measured": 0.52, "interval": (0.5, 0.54), "dense_ms": 2.5, "pruned_ms": 1.3,
        "shapes": {"x": (4, 6)}, "providers": ("cpu",), "threads": 1, "multiples": {"matmul": 8}, "error": 0.01,
    }  # fmt: skip
    return LatencyMet(**{**figures, **entries})


def test_costs_are_those_of_the_models(result: Result, document: dict[str, Any]) -> None:
    assert document["dense"]["macs"] == 6 * 10 + 10 * 8 + 8 * 3
    assert document["pruned"]["macs"] == 6 * 5 + 5 * 4 + 4 * 3
    assert document["pruned"]["macs"] == measure_cost(result.model).macs
    parameters = sum(int(np.prod(tensor.dims)) for tensor in result.model.graph.initializer if tensor.dims)
    assert document["pruned"]["parameters"] == parameters
    assert document["operators"]["dense"] == {"MatMul": 3, "Relu": 2}


def test_every_group_says_what_stays(result: Result, document: dict[str, Any]) -> None:
    first, second = document["groups"]
    assert [(group["units"], group["kept"], group["kept_share"]) for group in (first, second)] == [
        (10, 5, 0.5),
        (8, 4, 0.5),
    ]
    assert result.plan.widths == {first["name"]: 5, second["name"]: 4}
    # A node counts in every group that it makes or reads: the product in the middle in both.
    assert (first["macs"], first["macs_kept"]) == (60 + 80, 30 + 20)
    assert (second["macs"], second["macs_kept"]) == (80 + 24, 20 + 12)


def test_the_calibration_is_told_with_its_source(document: dict[str, Any], result: Result) -> None:
    assert document["calibration"] == {"source": "x.npz", "samples": 100, "taps": 2, "held_out": None}
    assert replace(result, statistics=None).document()["calibration"] is None


def test_samples_are_held_out_where_fits_were_chosen(result: Result) -> None:
    fitted = replace(result, fit=Refit(result.model, (), {"w": "it is tied"}))
    assert fitted.document()["calibration"]["held_out"] == 5
    assert fitted.document()["fit"] == {"layers": [], "left": {"w": "it is tied"}}
    assert result.document()["fit"] is None
    at_outputs = replace(result, losses_at="outputs")
    assert at_outputs.document()["calibration"]["held_out"] == (5 if result.curves else None)


def test_losses_are_named_only_where_there_are_any(result: Result) -> None:
    curve = Curve("a", 2, np.arange(2), np.array([0.0, 0.5, 1.0]), loss=np.array([3.0, 1.0, 0.0]))
    assert replace(result, curves=(curve,), losses_at="outputs").document()["losses_at"] == "outputs"
    assert replace(result, curves=(replace(curve, loss=None),)).document()["losses_at"] is None
    assert replace(result, curves=()).document()["losses_at"] is None


def test_without_curves_groups_have_no_losses(result: Result) -> None:
    for group in replace(result, curves=()).document()["groups"]:
        assert (group["loss"], group["variance"], group["curve"]) == (None, None, None)


def curve(size: int, *, losses: bool = True) -> Curve:
    share = np.linspace(0, 1, size + 1)
    loss = np.linspace(1 / 3, 0, size + 1) if losses else None
    return Curve("g", size, np.arange(size), share, loss=loss)


@pytest.mark.parametrize(("size", "kept", "points"), [(1, 0, 2), (4, 3, 5), (32, 7, 33), (64, 32, 33), (64, 33, 34)])
def test_a_curve_has_its_ends_the_cut_and_not_too_many_points(size: int, kept: int, points: int) -> None:
    entry = _losses(curve(size), kept)
    widths = entry["curve"]["kept"]
    assert len(widths) == points
    assert (widths[0], widths[-1]) == (0, size)
    assert kept in widths
    assert widths == sorted(set(widths))
    assert all(len(entry["curve"][name]) == points for name in ("loss", "variance"))


def test_losses_are_rounded_to_six_digits() -> None:
    entry = _losses(curve(3), 1)
    assert entry["loss"] == 0.222222
    assert entry["variance"] == 0.333333
    assert entry["curve"]["loss"] == [0.333333, 0.222222, 0.111111, 0.0]
    bare = _losses(curve(3, losses=False), 1)
    assert (bare["loss"], bare["curve"]["loss"]) == (None, None)
    assert bare["curve"]["variance"] == [0.0, 0.333333, 0.666667, 1.0]
    assert _losses(None, 1) == {"loss": None, "variance": None, "curve": None}


def test_latency_and_drop_are_there_only_for_their_targets(result: Result, document: dict[str, Any]) -> None:
    assert document["latency"] is None
    assert "drop" not in document
    drop = Drop("top-1", 0.01, 0.004, "macs", (Trial(0.5, 0.004, True), Trial(0.25, 0.02, False)))
    both = replace(result, latency=met(), drop=drop).document()
    assert both["latency"]["measured"] == 0.52
    assert both["drop"]["allowed"] == 0.01
    assert len(both["drop"]["tried"]) == 2
    json.loads(to_json(both))


def test_what_was_measured_is_a_part_of_the_document(result: Result, document: dict[str, Any]) -> None:
    measured = Measured(left={"latency": "none"})
    assert result.document(measured=measured)["not_measured"] == {"latency": "none"}
    assert "not_measured" not in document


def test_the_same_result_gives_the_same_document(result: Result, document: dict[str, Any]) -> None:
    assert to_json(result.document(command=["prune"], source="x.npz")) == to_json(document)


def test_a_line_says_target_costs_and_warnings(result: Result) -> None:
    line = repr(replace(result, warnings=()))
    assert line.startswith("<Result units=0.5: MACs 62 (37.8%), parameters ")
    assert line.endswith("; no warnings>")
    assert repr(replace(result, warnings=("a",))).endswith("; 1 warning>")
    assert repr(replace(result, warnings=("a", "b"))).endswith("; 2 warnings>")


def test_a_line_says_what_the_target_was_about(result: Result) -> None:
    drop = Drop("same class", 0.02, 0.0151, "macs", ())
    line = repr(replace(result, latency=met(), drop=drop))
    assert "latency 1.30 ms (52.0%)" in line
    assert "fall of same class 1.51% (2.00% allowed)" in line


def test_a_notebook_shows_warnings_as_text(result: Result) -> None:
    page = replace(result, warnings=("use <more> samples",))._repr_html_()
    assert "use &lt;more&gt; samples" in page
    assert '<th scope="col">warning</th>' in page
    assert "warning</th>" not in replace(result, warnings=())._repr_html_()


def test_it_is_measured_as_it_was_pruned(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx_subprune import result as module  # noqa: PLC0415  (the package's name is hidden by the fixture)

    asked: list[tuple[Any, ...]] = []

    def measure(dense: Any, pruned: Any, conditions: Any, data: Any, **options: Any) -> Measured:
        asked.append((conditions, data, options))
        return Measured()

    monkeypatch.setattr(module, "measure", measure)
    options = replace(result.options, latency_batch=4, seed=7, samples=9)
    replace(result, options=options, latency=met()).measure({"x": DATA}, latency=False)
    conditions, data, chosen = asked[0]
    assert conditions.shapes == {"x": (4, 6)}
    assert (conditions.timed_samples, conditions.seed) == (4, 7)
    assert conditions.runtime == options.runtime
    assert data.samples == 9
    assert chosen["macs_share"] == pytest.approx(62 / 164)
    assert (chosen["labelled"], chosen["latency"]) == (None, False)
    replace(result, options=options).measure()
    assert asked[1][0].shapes == result.analysis.input_shapes
    assert asked[1][1] is None


def test_labelled_data_are_all_measured_whatever_was_calibrated_on(result: Result) -> None:
    few = replace(result, options=replace(result.options, samples=3))
    measured = few.measure({"x": DATA}, labelled={"x": DATA, "labels": np.arange(100) % 3}, latency=False)
    assert measured.fidelity is not None
    assert measured.top1 is not None
    assert measured.fidelity.samples == 3
    assert [accuracy.samples for accuracy in measured.top1] == [100, 100]


def test_data_that_do_not_fit_are_refused(result: Result) -> None:
    with pytest.raises(DataError, match="input 'x' expected"):
        result.measure({"z": DATA}, latency=False)


@pytest.mark.parametrize("name", ["report.txt", "report", "json"])
def test_a_report_of_another_kind_is_refused_before_anything_is_measured(
    result: Result, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Result, "measure", lambda *_, **__: pytest.fail("it was measured"))
    with pytest.raises(OptionError, match="expected a report"):
        result.report(tmp_path / name, {"x": DATA})
    assert not list(tmp_path.iterdir())


def test_a_report_takes_what_was_measured(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Result, "measure", lambda *_, **__: pytest.fail("it was measured again"))
    measured = Measured(left={"latency": "no time"})
    result.report(tmp_path / "r.json", "data.npz", measured=measured, command=("a", "b"))
    written = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert written == json.loads(to_json(result.document(measured=measured, command=("a", "b"), source="data.npz")))


@pytest.mark.parametrize("write", [
    lambda result, path: result.save(path), lambda result, path: result.report(path, measured=Measured()),
])  # fmt: skip
def test_a_folder_that_is_not_there_is_an_error_of_one_line(
    result: Result, tmp_path: Path, write: Callable[[Result, Path], None]
) -> None:
    with pytest.raises(OutputError) as error:
        write(result, tmp_path / "gone" / "out.json")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_saved_model_is_the_model(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx") == result.model
