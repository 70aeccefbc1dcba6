"""Documents that are JSON whatever the numbers, tables that hold them, and what makes an environment unfit."""

from __future__ import annotations

import io
import json
from pathlib import Path

import onnx
import pytest
from rich.console import Console, RenderableType

from onnx_subprune import report
from onnx_subprune.errors import OutputError
from onnx_subprune.evaluate import Fidelity, Latency, Memory, NodeTime, OutputFidelity, Profile, Top1
from onnx_subprune.formatting import count, milliseconds, percent
from onnx_subprune.pipeline import Result, analyse
from onnx_subprune.report import Environment


def shown(part: RenderableType) -> list[list[str]]:
    """Return the words of every printed line."""
    console = Console(file=io.StringIO(), width=120, markup=False)
    console.print(part)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_the_document_says_what_was_done(result: Result) -> None:
    document = result.document(command=["onnx-subprune", "prune"], source="data.npz")
    (group,) = document["groups"]
    said = {
        "name": "first",
        "units": 10,
        "producers": ["first"],
        "consumers": ["second"],
        "macs": 80,
        "removable": False,
        "kept": 5,
        "kept_share": 0.5,
        "macs_kept": 40,
    }
    assert {name: group[name] for name in said} == said
    assert document["dense"]["macs"] == 80
    assert document["pruned"]["macs"] == 40
    assert document["calibration"] == {"source": "data.npz", "samples": 200, "taps": 1, "held_out": 5}
    assert 0.0 < document["errors"]["second"] < 1.0
    assert document["frozen"] == [{"name": "second", "units": 2, "macs": 20, "reasons": ["graph output 'y'"]}]
    assert document["operators"]["dense"] == {"MatMul": 2, "Relu": 1}
    assert document["options"]["target"] == "units=0.5"
    assert [layer["name"] for layer in document["fit"]["layers"]] == ["first", "second"]
    assert json.loads(report.to_json(document))["groups"] == document["groups"]


def test_the_inspect_document(model: onnx.ModelProto) -> None:
    document = analyse(model).document()
    assert document["prunable_share"] == {"macs": 1.0, "parameters": 1.0}
    assert [group["name"] for group in document["groups"]] == ["first"]
    assert document["input_shapes"] == {"x": [1, 6]}


def test_numbers_that_json_lacks_are_null() -> None:
    text = report.to_json({"a": float("inf"), "b": [float("nan"), {"c": (1.5, -float("inf"))}], 3: "Σ"})
    assert json.loads(text) == {"a": None, "b": [None, {"c": [1.5, None]}], "3": "Σ"}
    assert text.endswith("}\n")


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report.write_json({"a": 1}, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": 1}
    with pytest.raises(OutputError, match="cannot write the report"):
        report.write_json({"a": 1}, tmp_path / "missing" / "report.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        report.write_json({"a": 1}, tmp_path / "folder.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.json", "report.json"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (12_572_096, "12.6 M"),
        (99_960, "100 k"),
        (999_600, "1.00 M"),
        (4_089_284_608, "4.09 G"),
    ],
)
def test_counts_have_three_digits(number: int, text: str) -> None:
    assert count(number) == text
    assert count(number, "B").endswith("B")


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "-"), (0.0, "0%"), (1e-6, "< 0.01%"), (0.0012, "0.12%"), (0.0123, "1.2%"), (0.0996, "10%"), (0.5, "50%")],
)
def test_shares_have_two_digits_that_count(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0059, "5.90 µs"), (0.1, "0.100 ms"), (12.34, "12.3 ms"), (250, "250 ms"), (2500, "2.50 s")]
)
def test_times_have_three_digits(value: float, text: str) -> None:
    assert milliseconds(value) == text


def test_before_and_after(result: Result) -> None:
    rows = {row[0]: row[1:] for row in shown(report.cost_table(result.document())) if row}
    assert rows["MACs"] == ["80", "40", "50.0%"]
    assert rows["parameters"] == ["80", str(result.pruned.parameters), f"{result.pruned.parameters / 80:.1%}"]
    assert rows["nodes"][0] == "3"
    assert rows["MatMul"] == ["2", "2", "100.0%"]
    assert rows["Relu"] == ["1", "1", "100.0%"]


def test_widths(result: Result) -> None:
    lost = result.errors["second"]
    assert ["first", "10", "5", "50%", f"{lost:.1%}"] in shown(report.width_table(result.document()))


def test_accuracy_is_compared_with_the_first() -> None:
    rows = shown(report.accuracy_table(["a", "b"], [Top1(0.9, 90, 100), Top1(0.875, 7, 8)]))
    assert ["b", "87.50%", "-2.50", "7", "/", "8"] in rows


def test_fidelity_shows_what_there_is() -> None:
    outputs = {"y": OutputFidelity(0.1, 0.99, 1.0, 0.5, 0.25), "z": OutputFidelity(float("inf"), 0.0, 2.0)}
    rows = shown(report.fidelity_table(["m"], [Fidelity(outputs, 4)]))
    assert ["m", "y", "1.00e-01", "0.990000", "1.00e+00", "50.00%", "2.50e-01"] in rows
    assert ["m", "z", "inf", "0.000000", "2.00e+00", "-", "-"] in rows


def test_the_speed_up_is_the_inverse_of_the_paired_ratio() -> None:
    rows = shown(report.latency_table(["m"], [Latency(2.0, 3.0, 2.5, 500.0, 0.5)]))
    assert ["m", "2.000", "ms", "3.000", "ms", "500.0", "/", "s", "2.00", "x", "-"] in rows
    sure = Latency(2.0, 3.0, 2.5, 500.0, 0.5, (0.4, 0.8))
    rows = shown(report.latency_table(["m"], [sure], memory=[Memory(2_000_000, 1_000_000)]))
    assert next(row for row in rows if row[:1] == ["m"])[8:] == ["2.00", "x", "1.25", "to", "2.50", "2.00", "MB"]


def test_operators_stand_side_by_side_and_nodes_by_their_length() -> None:
    cpu = "CPUExecutionProvider"
    nodes = tuple(NodeTime(f"n{i}", "Conv" if i else "Add", cpu, 1e-3 * i, (), ((1, i),)) for i in range(4))
    dense, pruned = Profile(nodes, 7e-3, 1e-3, 5, (cpu,)), Profile(nodes[1:3], 4e-3, 5e-4, 5, (cpu,))
    rows = shown(report.operator_table(["a/dense.onnx", "a/pruned.onnx"], [dense, pruned]))
    assert ["Conv", "6.000", "ms", "in", "3", "3.000", "ms", "in", "2"] in rows
    assert ["Add", "0.000", "ms", "in", "1", "-"] in rows
    assert ["between", "nodes", "1.000", "ms", "0.500", "ms"] in rows
    rows = shown(report.node_table("m", dense, most=2))
    assert [row for row in rows if row[:1] and row[0].startswith("n") and row[0][1:].isdigit()] == [
        ["n3", "Conv", "CPU", "1x3", "3.000", "ms", "50.0%"],
        ["n2", "Conv", "CPU", "1x2", "2.000", "ms", "33.3%"],
    ]


def test_operators_of_several_providers_say_where_they_ran() -> None:
    nodes = (NodeTime("a", "Conv", "CUDAExecutionProvider", 2e-3), NodeTime("b", "Shape", "CPUExecutionProvider", 1e-6))
    rows = shown(report.operator_table(["m"], [Profile(nodes, 3e-3, 1e-3, 1, ("CUDAExecutionProvider",))]))
    assert ["Conv", "on", "CUDA", "2.000", "ms", "in", "1"] in rows
    assert ["Shape", "on", "CPU", "0.001", "ms", "in", "1"] in rows


def fit(**changes: object) -> Environment:
    values = {"versions": {}, "runtimes": ("onnxruntime",), "providers": {"CPUExecutionProvider": None}}
    return Environment(**{**values, "opset": 22, "ir_version": 10, **changes})


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (fit(runtimes=("onnxruntime", "onnxruntime-gpu")), "pip uninstall onnxruntime onnxruntime-gpu"),
        (fit(providers={}), "it is not in this build"),
        (fit(providers={"CPUExecutionProvider": "no memory"}), "no memory"),
        (fit(opset=None), "reads none"),
    ],
)
def test_an_unfit_environment(environment: Environment, problem: str) -> None:
    (found,) = environment.problems
    assert problem in found
    assert [row[0] for row in shown(report.environment_table(environment)) if row[:1] == ["problem"]] == ["problem"]


def test_a_fit_environment_may_have_providers_that_do_not_load() -> None:
    environment = fit(providers={"CUDAExecutionProvider": "no driver", "CPUExecutionProvider": None})
    assert environment.problems == []
    assert ["CUDAExecutionProvider", "no", "driver"] in shown(report.environment_table(environment))
