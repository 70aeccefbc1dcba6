"""A model taken apart: it stays as it is, and is measured once."""

from __future__ import annotations

import gc
import json

import onnx
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.model import cost, input_specs, measure_cost
from onnx_subprune.network import analysis as module
from onnx_subprune.network.analysis import analyse


def test_the_model_itself_is_not_changed(model: onnx.ModelProto) -> None:
    before = model.SerializeToString(deterministic=True)
    analysis = analyse(model, {"x": (2, 6)})
    assert analysis.model is model
    assert model.SerializeToString(deterministic=True) == before
    assert analysis.input_shapes == {"x": (2, 6)}


def test_cost_and_inputs_are_those_of_the_model_and_worked_out_once(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = analyse(model, {"x": (2, 6)})
    calls: list[onnx.ModelProto] = []

    def counting(proto: onnx.ModelProto, *shapes: object) -> cost.Cost:
        calls.append(proto)
        return measure_cost(proto, *shapes)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "measure_cost", counting)
    assert analysis.cost == analysis.cost == measure_cost(model, {"x": (2, 6)})
    assert analysis.cost.macs == 2 * (6 * 8 + 8 * 5 + 5 * 3)
    assert len(calls) == 1
    assert list(analysis.inputs) == list(input_specs(model))


def test_the_document_names_every_group(model: onnx.ModelProto) -> None:
    analysis = analyse(model)
    document = analysis.document()
    assert json.loads(json.dumps(document)) == document
    assert [(group["name"], group["units"]) for group in document["groups"]] == [("first", 8), ("second", 5)]
    assert [(group["name"], group["reasons"]) for group in document["frozen"]] == [("last", ["graph output 'y'"])]
    assert document["dense"]["macs"] == analysis.cost.macs
    assert document["prunable_share"] == analysis.prunable_share == {"macs": 1.0, "parameters": 1.0}


def test_it_says_in_a_line_and_a_table_what_can_be_pruned(model: onnx.ModelProto) -> None:
    analysis = analyse(model)
    assert "2 of 3 groups can be pruned, 13 units" in repr(analysis)
    assert all(word in analysis._repr_html_() for word in ("first", "second", "Frozen", "graph output"))


def test_shapes_that_do_not_fit_are_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(OptionError):
        analyse(model, {"x": (2, 7)})


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_of_cycles_is_left_as_it_was(model: onnx.ModelProto, enabled: bool) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(OptionError):
            analyse(model, {"no such input": (1,)})
        analyse(model, {"x": (2, 6)})
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
