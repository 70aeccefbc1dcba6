"""What is needed and what varies in a graph, held against a walk over all of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onnx_subprune.structure.reachability import Reachability


@st.composite
def questions(draw: st.DrawFn) -> tuple[Reachability, list[str], set[int], dict[int, set[str]]]:
    """Return a graph of few nodes in topological order, its sinks, nodes that are cut and reads that are dropped."""
    count = draw(st.integers(1, 9))
    names = ["x", "constant", *(f"t{place}" for place in range(count))]
    reads = [draw(st.lists(st.sampled_from(names[: place + 2]), max_size=3)) for place in range(count)]
    sinks = draw(st.lists(st.sampled_from(names[2:]), min_size=1, max_size=2))
    cut = draw(st.sets(st.integers(0, count - 1), max_size=2))
    joins = draw(st.sets(st.integers(0, count - 1), max_size=2))
    dropped = {place: set(reads[place][:1]) for place in joins}
    graph = Reachability(reads, [[f"t{place}"] for place in range(count)], {"x"}, sinks)
    return graph, sinks, cut, dropped


@given(questions())
def test_nodes_that_are_not_needed_any_more_are_those_that_a_walk_does_not_reach(
    question: tuple[Reachability, list[str], set[int], dict[int, set[str]]],
) -> None:
    graph, _, cut, dropped = question
    assert graph.unneeded(cut, dropped) == graph.needed() - graph.needed(cut, dropped)


@given(questions())
def test_a_sink_settles_where_a_walk_from_the_sources_does_not_reach_it_any_more(
    question: tuple[Reachability, list[str], set[int], dict[int, set[str]]],
) -> None:
    graph, sinks, cut, dropped = question
    settled = graph.varying() - graph.varying(cut, dropped)
    assert graph.settles(cut, dropped) == (not settled.isdisjoint(sinks))


def test_a_chain_is_settled_by_any_of_its_nodes_without_a_walk_along_it() -> None:
    """Every node of a chain lies on all ways: none is gone through to see that its end has settled."""
    count = 2000
    makes = [[f"t{place}"] for place in range(count)]
    graph = Reachability([["x"], *makes[:-1]], makes, {"x"}, [f"t{count - 1}"])
    assert graph.settles({0}, {})
    graph.readers.clear()
    assert all(graph.settles({place}, {}) for place in range(count))


def test_what_a_shortcut_passes_by_lies_on_no_way_that_all_share() -> None:
    #  x -> 0 -> 1 -> 2 -> 3, and 0 -> 2
    graph = Reachability([["x"], ["a"], ["a", "b"], ["c"]], [["a"], ["b"], ["c"], ["d"]], {"x"}, ["d"])
    assert [graph.settles({place}, {}) for place in range(4)] == [True, False, True, True]
    assert graph.unneeded({2}, {}) == {0, 1}
    assert graph.unneeded(set(), {2: {"b"}}) == {1}
    assert graph.is_needed(1)
    assert graph.readers["a"] == {1: 1, 2: 1}
