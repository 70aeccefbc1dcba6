"""Documents: they say what was done, and are JSON whatever the numbers."""

from __future__ import annotations

import json

import onnx

from onnx_subprune import report
from onnx_subprune.pipeline import Result, analyse


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
