"""What the base class checks round every pass, and the sequence of passes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import onnx
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.errors import InternalError
from onnx_subprune.model import to_graph
from onnx_subprune.passes import Mandatory, Pass, Sequence
from onnx_subprune.passes.wiring import defect

TEXT = "g (float[4] x, float[4] z) => (float[4] y) { a = Relu (x) y = Add (a, z) }"


class Custom(Pass):
    """A pass made of a function, with a requirement and a promise that may fail."""

    def __init__(
        self, edit: Callable[[gs.Graph], bool], *, refusal: str | None = None, broken: str | None = None
    ) -> None:
        self.edit, self.refusal, self.broken = edit, refusal, broken

    def requires(self, graph: gs.Graph) -> str | None:
        return self.refusal

    def ensures(self, graph: gs.Graph) -> str | None:
        return self.broken

    def run(self, graph: gs.Graph) -> bool:
        return self.edit(graph)


@pytest.fixture
def graph(build: Callable[..., onnx.ModelProto]) -> gs.Graph:
    return to_graph(build(TEXT))


def rename(graph: gs.Graph) -> bool:
    graph.nodes[0].name = "renamed"
    return True


def keep(graph: gs.Graph) -> bool:
    return False


def test_a_pass_edits_in_place_and_says_whether(graph: gs.Graph) -> None:
    result = Custom(rename)(graph)
    assert result.graph is graph
    assert result.modified
    assert graph.nodes[0].name == "renamed"
    assert not Custom(keep)(graph).modified


def test_a_requirement_that_fails_is_a_refusal(graph: gs.Graph, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = Custom(rename, refusal="not today")(graph)
    assert not result.modified
    assert result.refusals == ("Custom: not today",)
    assert graph.nodes[0].name != "renamed"
    assert "not today" in caplog.text


def test_a_promise_that_fails_is_a_bug(graph: gs.Graph) -> None:
    with pytest.raises(InternalError, match="pass Custom left the graph wrong: not done; please report this"):
        Custom(rename, broken="not done")(graph)


def drop_input(graph: gs.Graph) -> bool:
    graph.inputs.pop()
    return True


def rename_output(graph: gs.Graph) -> bool:
    graph.outputs[0].name = "other"
    return True


def cut(graph: gs.Graph) -> bool:
    graph.nodes[1].inputs[0] = gs.Variable("nowhere")
    return True


def make_twice(graph: gs.Graph) -> bool:
    graph.nodes.append(gs.Node("Neg", "neg", inputs=[graph.inputs[0]], outputs=[graph.nodes[0].outputs[0]]))
    return True


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop_input, "inputs and outputs of the graph changed"),
        (rename_output, "inputs and outputs of the graph changed"),
        (cut, "nothing makes tensor 'nowhere'"),
        (make_twice, "two nodes make tensor 'a'"),
    ],
)
def test_a_broken_graph_is_a_bug(graph: gs.Graph, edit: Callable[[gs.Graph], bool], message: str) -> None:
    with pytest.raises(InternalError, match=message):
        Custom(edit)(graph)


def test_a_graph_that_came_in_broken_is_not_blamed_on_the_pass(graph: gs.Graph) -> None:
    cut(graph)
    assert Custom(rename)(graph).modified


def test_a_sequence_runs_all_and_joins_the_results(graph: gs.Graph) -> None:
    result = Sequence(Custom(keep), Custom(rename), Custom(keep, refusal="no"), Custom(keep, refusal="nor this"))(graph)
    assert result.modified
    assert result.refusals == ("Custom: no", "Custom: nor this")
    assert not Sequence(Custom(keep))(graph).modified


def test_a_mandatory_pass_that_refuses_is_a_bug(graph: gs.Graph) -> None:
    with pytest.raises(InternalError, match="every pass to run, but Custom: not today; please report this"):
        Mandatory(Custom(keep), Custom(rename, refusal="not today"))(graph)
    assert Mandatory(Custom(keep), Custom(rename))(graph).modified


def test_a_graph_known_to_be_sound_is_not_looked_at_again(graph: gs.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def counted(graph: gs.Graph) -> str | None:
        looked.append(graph)
        return defect(graph)

    monkeypatch.setattr("onnx_subprune.passes.base.defect", counted)
    assert Sequence(Custom(keep), Custom(keep, refusal="no"), Custom(rename))(graph).sound
    assert len(looked) == 3
    with pytest.raises(InternalError, match="nothing makes tensor 'nowhere'"):
        Sequence(Custom(keep), Custom(cut))(graph)


def test_a_graph_that_came_in_broken_is_not_called_sound(graph: gs.Graph) -> None:
    cut(graph)
    assert not Sequence(Custom(keep), Custom(rename))(graph).sound
