"""Whether a group may go as a whole is answered from the nodes that change alone, and as the whole graph answers it."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest

from onnx_subprune.errors import InternalError
from onnx_subprune.network.analysis import analyse
from onnx_subprune.structure import Structure
from onnx_subprune.structure import branches as branches_module
from onnx_subprune.structure.branches import Branches

Net = Callable[..., onnx.ModelProto]


def _residual(net: Net, blocks: int) -> onnx.ModelProto:
    """Return blocks of two convolutions that are added to a stream, and one convolution behind all."""
    lines, weights, stream = [], {"w": (4, 4, 1, 1)}, "x"
    for block in range(blocks):
        lines.append(f"[a{block}] a{block} = Conv({stream}, wa{block})\nr{block} = Relu(a{block})")
        lines.append(f"[b{block}] b{block} = Conv(r{block}, wb{block})\ns{block} = Add({stream}, b{block})")
        weights |= {f"wa{block}": (6, 4, 1, 1), f"wb{block}": (4, 6, 1, 1)}
        stream = f"s{block}"
    text = "\n".join(lines)
    return net(f"g (float[1,4,3,3] x) => (float[1,4,3,3] y) {{\n{text}\n[last] y = Conv({stream}, w)\n}}", **weights)


def _agrees(structure: Structure) -> None:
    fresh = Branches(structure.graph, structure.records)
    for group in structure.prunable:
        assert fresh.is_removable(group.atom) == (fresh.removal([group.atom]).reason is None), group.name


def test_the_answer_is_that_of_the_whole_graph(net: Net) -> None:
    structure = analyse(_residual(net, 5)).structure
    assert [group.name for group in structure.removable] == [f"a{block}" for block in range(5)]
    _agrees(structure)


def test_a_question_after_the_graph_was_edited_is_refused(net: Net) -> None:
    structure = analyse(_residual(net, 2)).structure
    first, second = structure.prunable[:2]
    assert first.removable
    structure.branches.close()
    assert first.removable
    with pytest.raises(InternalError, match="before the graph is edited"):
        _ = second.removable


def test_the_work_for_a_group_does_not_grow_with_the_graph(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    visits: dict[int, int] = {}
    looked_at = Branches._visit

    def counted(self: Branches, *arguments: object) -> list[str]:
        visits[blocks] += 1
        return looked_at(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(branches_module.Branches, "_visit", counted)
    for blocks in (4, 32):
        visits[blocks] = 0
        structure = analyse(_residual(net, blocks)).structure
        assert len(structure.removable) == blocks
    assert visits[32] == 8 * visits[4] > 0
