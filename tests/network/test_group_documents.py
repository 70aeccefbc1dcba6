"""Groups as plain data: what documents say of them can be written as JSON, and holds."""

from __future__ import annotations

import json

import onnx

from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.group_documents import frozen_document, group_document, notices_document
from onnx_subprune.structure import RuleError

ATTENTION = """<ir_version: 8, opset_import: ["": 17]>
g (float[2,5,6] x) => (float[2,5,3] y) <float[6,8] wq, float[6,8] wk, float[6,8] wv, float[8,3] wo> {
    [q] q = MatMul(x, wq)
    [k] k = MatMul(x, wk)
    [t] t = Transpose <perm=[0,2,1]> (k)
    [s] s = MatMul(q, t)
    [p] p = Softmax <axis=-1> (s)
    [v] v = MatMul(x, wv)
    [o] o = MatMul(p, v)
    [out] y = MatMul(o, wo)
}"""


def _attention() -> onnx.ModelProto:
    model = onnx.parser.parse_model(ATTENTION)
    for name, shape in (("wq", (6, 8)), ("wk", (6, 8)), ("wv", (6, 8)), ("wo", (8, 3))):
        size = shape[0] * shape[1]
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, shape, [0.1 * i for i in range(size)])
        model.graph.initializer.append(tensor)
    return model


def test_a_group_says_who_makes_and_who_reads_it(model) -> None:
    groups = analyse(model).structure.prunable
    first, second = map(group_document, groups)
    assert json.loads(json.dumps(first)) == first
    assert {key: first[key] for key in ("name", "units", "producers", "consumers", "contractions")} == {
        "name": "first", "units": 8, "producers": ["first"], "consumers": ["second"], "contractions": [],
    }  # fmt: skip
    assert (second["name"], second["units"], second["consumers"]) == ("second", 5, ["last"])


def test_multiply_accumulates_are_those_of_the_layers_that_touch_it(model) -> None:
    """One sample: 6 x 8 and 8 x 5 for the first group, 8 x 5 and 5 x 3 for the second."""
    first, second = map(group_document, analyse(model, {"x": (1, 6)}).structure.prunable)
    assert (first["macs"], second["macs"]) == (6 * 8 + 8 * 5, 8 * 5 + 5 * 3)
    twice = group_document(analyse(model, {"x": (2, 6)}).structure.prunable[0])
    assert twice["macs"] == 2 * first["macs"]


def test_products_of_activations_are_named(model) -> None:
    documents = {group.name: group_document(group) for group in analyse(_attention()).structure.prunable}
    assert documents["q"]["producers"] == ["q", "k"]
    assert (documents["q"]["consumers"], documents["q"]["contractions"]) == ([], ["s"])
    assert (documents["v"]["consumers"], documents["v"]["contractions"]) == (["out"], [])


def test_a_frozen_group_says_why(model) -> None:
    (group,) = analyse(model, {"x": (1, 6)}).structure.frozen
    document = frozen_document(group)
    assert json.loads(json.dumps(document)) == document
    assert document == {"name": "last", "units": 3, "macs": 5 * 3, "reasons": ["graph output 'y'"]}


def test_notices_are_what_went_wrong_and_nothing_else(model) -> None:
    structure = analyse(model).structure
    assert notices_document(structure, (), ()) == {}
    assert notices_document(structure, ["fold: no"], ["2 nodes are"]) == {
        "forms": ["2 nodes are"],
        "refusals": ["fold: no"],
    }
    structure.records.add(RuleError("Relu", "act", "KeyError: 'x'"))
    error = {"operator": "Relu", "node": "act", "error": "KeyError: 'x'"}
    notices = notices_document(structure, (), ())
    assert list(notices) == ["rule_errors"]
    assert list(notices["rule_errors"][0].values()) == list(error.values())
