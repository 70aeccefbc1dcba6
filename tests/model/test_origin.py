"""What the graph message defines that a graph came from."""

from __future__ import annotations

from onnx import parser

from onnx_subprune.model.origin import Origin, node_key


def origin() -> Origin:
    return Origin(
        parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 2] x) => (float[N, 2] y) <float[2] w = {1, 2}, float[unk__0, 2] a> {
            c = Constant<value_float = 2.0>()
            a = Add(x, w)
            words = Constant<value_strings = ["a"]>()
            y = Mul(a, c)
        }
    """).graph
    )


def test_a_node_is_recognised_by_its_first_output_or_else_by_its_name() -> None:
    assert node_key(["", "y"], "n") == "y"
    assert node_key([], "n") not in ("n", node_key([], "m"))


def test_constants_of_numbers_are_constants_and_those_of_text_are_nodes() -> None:
    graph = origin()
    assert list(graph.constants) == ["c"]
    assert (graph.stores("c"), graph.stores("w"), graph.stores("words"), graph.stores("x")) == (
        True,
        True,
        False,
        False,
    )
    assert graph.positions == {"c": 0, "a": 1, "words": 2, "y": 3}


def test_names_and_what_is_said_of_them() -> None:
    graph = origin()
    assert graph.defined == {"x", "w", "c", "a", "words", "y"}
    assert graph.references == {"x", "w", "a", "c", "y"}
    assert graph.symbols == {"N", "unk__0"}
    assert {name: len(infos) for name, infos in graph.infos.items()} == {"x": 1, "y": 1, "a": 1}
