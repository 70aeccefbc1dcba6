"""What `inspect` shows of a structure, in the terminal and on the page, also for groups that no weight reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from printed import printed_words

from onnx_subprune import report
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.report.html_page import to_html

# The units of `query` and `key` are summed over by their product alone: no weight reads them.
ATTENTION = """
    <ir_version: 8, opset_import: ["" : 17]>
    attention (float[N, 5, 6] x) => (float[N, 5, 3] y) {
        q = MatMul(x, w_query)
        k = MatMul(x, w_key)
        v = MatMul(x, w_value)
        turned = Transpose<perm = [0, 2, 1]>(k)
        scores = MatMul(q, turned)
        weights = Softmax<axis = -1>(scores)
        mixed = MatMul(weights, v)
        y = MatMul(mixed, w_out)
    }
"""
SHAPES = {"w_query": (6, 8), "w_key": (6, 8), "w_value": (6, 4), "w_out": (4, 3)}
NAMES = ("query", "key", "value", "turn", "product", "softmax", "mix", "out")


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    model = onnx.parser.parse_model(ATTENTION)
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for node, name in zip(model.graph.node, NAMES, strict=True):
        node.name = name
    return analyse(model)


@pytest.fixture(scope="module")
def document(analysis: Analysis) -> dict[str, Any]:
    return analysis.document()


def test_a_product_of_activations_is_named_as_the_reader(document: dict[str, Any]) -> None:
    by_name = {group["name"]: group for group in document["groups"]}
    scores = next(group for group in by_name.values() if not group["consumers"])
    assert scores["contractions"] == ["product"]
    assert set(scores["producers"]) == {"query", "key"}
    values = next(group for group in by_name.values() if group["consumers"] == ["out"])
    lines = printed_words(report.group_table(document))
    assert next(line for line in lines if line[:1] == [scores["name"]])[1:4] == ["8", "2", "product"]
    assert next(line for line in lines if line[:1] == [values["name"]])[1:4] == ["4", "1", "out"]
    page = to_html(document)
    assert "product <span" in page
    assert "(product of activations)" in page
    assert page.count("(product of activations)") == 1


def test_a_group_that_nothing_reads_has_a_dash(document: dict[str, Any]) -> None:
    (group, *_) = document["groups"]
    unread = {**document, "groups": [{**group, "consumers": [], "contractions": []}]}
    (line,) = (line for line in printed_words(report.group_table(unread)) if line[:1] == [group["name"]])
    assert line[3] == "-"
    assert group["name"] in to_html(unread)


def test_many_readers_are_the_first_and_a_number(document: dict[str, Any]) -> None:
    (group, *_) = document["groups"]
    read = {**document, "groups": [{**group, "consumers": ["a", "b", "a", "c"]}]}
    (line,) = (line for line in printed_words(report.group_table(read)) if line[:1] == [group["name"]])
    assert line[3:5] == ["a", "+2"]


def test_shares_and_totals_count_macs_of_the_model(document: dict[str, Any]) -> None:
    macs = document["dense"]["macs"]
    lines = printed_words(report.group_table(document))
    for group in document["groups"]:
        (line,) = (line for line in lines if line[:1] == [group["name"]])
        assert line[-1] == f"{group['macs'] / macs:.1%}"
    assert report.totals(document).startswith("2 of 3 groups can be pruned; they touch 100.0% of ")
    without = {**document, "dense": {**document["dense"], "macs": 0}}
    assert all(line[-1] == "-" for line in printed_words(report.group_table(without))[2:])


def test_frozen_groups_say_the_first_reason_and_how_many_more(document: dict[str, Any]) -> None:
    (frozen,) = document["frozen"]
    assert [frozen["name"], "3", *frozen["reasons"][0].split()] in printed_words(report.frozen_table(document))
    several = {**document, "frozen": [{**frozen, "reasons": ["one", "two", "three"]}]}
    assert [frozen["name"], "3", "one", "(and", "2", "more)"] in printed_words(report.frozen_table(several))


def test_a_rule_that_failed_is_told_once_for_all_its_nodes(document: dict[str, Any]) -> None:
    assert report.notice_lines(document) == []
    failed = [{"operator": "Relu", "node": node, "error": "KeyError: 'a'"} for node in ("r1", "r2", "r3")]
    failed.append({"operator": "Conv", "node": "c", "error": "IndexError: 7"})
    lines = report.notice_lines({**document, "rule_errors": failed})
    assert lines == [
        "internal error of the rule for Relu at node 'r1' and 2 more: KeyError: 'a'; please report this",
        "internal error of the rule for Conv at node 'c': IndexError: 7; please report this",
    ]
    page = to_html({**document, "rule_errors": failed})
    assert "internal error of the rule for Conv at node &#39;c&#39;: IndexError: 7; please report this" in page
    assert "internal error" not in to_html(document)


def test_a_notebook_names_the_product_too(analysis: Analysis) -> None:
    assert "<td>product</td>" in analysis._repr_html_()


def test_points_that_are_no_outputs_are_named_with_the_reason(document: dict[str, Any]) -> None:
    assert report.comparison_lines(document) == []
    points = [
        {"tensor": "y", "outputs": ["y"], "reason": None},
        {"tensor": "scores", "outputs": ["y", "z"], "reason": "Sigmoid 's' saturates behind it"},
    ]
    (line,) = report.comparison_lines({**document, "compared_at": points})
    assert line == "compared at 'scores' for 'y', 'z': Sigmoid 's' saturates behind it"


def test_the_module_of_a_group_has_a_column_where_the_model_says_it(document: dict[str, Any]) -> None:
    assert "module" not in printed_words(report.group_table(document))[0]
    first, *others = document["groups"]
    marked = {**document, "groups": [{**first, "module": "blocks.0.attn"}, *others]}
    heading, *lines = printed_words(report.group_table(marked))
    assert heading[:3] == ["group", "module", "units"]
    assert next(line for line in lines if line[:1] == [first["name"]])[1] == "blocks.0.attn"
    assert all(line[1] == "-" for line in lines if line[:1] in [[group["name"]] for group in others])
    assert "blocks.<wbr>0.<wbr>attn" in to_html(marked)
    assert "module" not in printed_words(report.frozen_table(marked))[0]
    frozen = [{**group, "module": "head"} for group in document["frozen"]]
    assert printed_words(report.frozen_table({**document, "frozen": frozen}))[0][:3] == ["frozen", "group", "module"]
