"""Every operator of ONNX and of ONNX Runtime has a rule, or a reason why nothing around it is pruned."""

from __future__ import annotations

from collections import Counter

import onnx
import onnx_graphsurgeon as gs
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from onnx_subprune.structure.rules import RULES, SHAPE_RULES, rule_of
from onnx_subprune.structure.rules.refusals import REASONS, reason_for

CONTRIB = "com.microsoft"
KNOWN = {*RULES, *(("", operator) for operator in SHAPE_RULES)}
ONNX = {("", schema.name) for schema in onnx.defs.get_all_schemas() if not schema.domain}
RUNTIME = {(schema.domain, schema.name) for schema in runtime.get_all_operator_schema()}
ALL = sorted(ONNX | {entry for entry in RUNTIME if entry[0] in ("", CONTRIB)})


@pytest.mark.parametrize(("domain", "operator"), ALL)
def test_every_operator_has_a_rule_or_a_reason(domain, operator):
    if (domain, operator) in KNOWN:
        assert (domain, operator) not in REASONS, f"{operator} has a rule by now: take its reason out"
    else:
        assert (domain, operator) in REASONS, f"{operator} has no rule: write one, or say why in rules/refusals.py"


def test_every_other_domain_of_onnx_and_of_the_runtime_has_a_reason():
    schemas = [(schema.domain, schema.name) for schema in onnx.defs.get_all_schemas()]
    others = {entry for entry in (*schemas, *RUNTIME) if entry[0] not in ("", CONTRIB)}
    unknown = Counter(d for d, op in others if reason_for(gs.Node(op, "n", domain=d)).startswith("no rule"))
    assert not unknown


def test_no_rule_or_reason_is_for_an_operator_that_nobody_has():
    """Older exporters put an operator of ONNX Runtime into the domain of ONNX."""
    assert sorted({*KNOWN, *REASONS} - set(ALL)) == []


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (gs.Node("Einsum", "e"), "Einsum 'e' contracts by an equation that is no product of two tensors"),
        (gs.Node("Einsum", "e", domain="ai.onnx"), "Einsum 'e' contracts by an equation that is no product"),
        (gs.Node("MoE", "m", domain=CONTRIB), "MoE 'm' sends every token to some of its experts, out of sight"),
        (gs.Node("Conv", "c", domain="com.microsoft.nchwc"), "Conv 'c' is laid out for one processor, as ONNX Runtime"),
        (gs.Node("Scaler", "s", domain="ai.onnx.ml"), "Scaler 's' belongs to classical machine learning"),
        (gs.Node("Thing", "t", domain="my.own"), "no rule for operator Thing 't'"),
        (gs.Node("Einsum", "e", domain="my.own"), "no rule for operator Einsum 'e'"),
    ],
)
def test_reasons_name_the_node(node, words):
    assert reason_for(node).startswith(words)
    assert rule_of(node) is None


def test_reasons_finish_the_name_of_a_node():
    """`Det 'd' mixes all entries of a matrix`: a verb, and no full stop."""
    for reason in set(REASONS.values()):
        first = reason.split()[0]
        assert first.endswith("s") or first == "was", reason
        assert not reason.endswith(".")


def test_a_reason_is_what_the_user_reads(between, refuses):
    text = "[u] r, i = Unique <axis=1> (h)"
    refuses(between(text, image="2,3,6,7"), {"c1": "Unique 'u' picks entries by their values, all axes at once"})
