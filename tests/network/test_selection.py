"""Globs choose groups; one that matches nothing is refused."""

from __future__ import annotations

import onnx
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.selection import check_patterns, chosen_groups
from onnx_subprune.options import Options


@pytest.mark.parametrize(
    ("ignore", "only", "chosen"),
    [
        ((), (), ["first", "second"]),
        (("fir*",), (), ["second"]),
        ((), ("second",), ["second"]),
        (("w1",), ("first", "second"), ["second"]),
        (("last",), (), ["first", "second"]),
        (("*",), (), []),
    ],
)
def test_groups_are_chosen_by_group_node_or_weight(
    model: onnx.ModelProto, ignore: tuple[str, ...], only: tuple[str, ...], chosen: list[str]
) -> None:
    groups = chosen_groups(analyse(model).structure, Options(ignore=ignore, only=only))
    assert [group.name for group in groups] == chosen


@pytest.mark.parametrize("options", [Options(ignore=("conv*",)), Options(only=("first", "conv*"))])
def test_a_glob_that_matches_nothing_is_refused_with_names(model: onnx.ModelProto, options: Options) -> None:
    with pytest.raises(OptionError, match=r"'conv\*' to match a group, node or weight.* look like first, second$"):
        chosen_groups(analyse(model).structure, options)


def test_three_names_are_examples_enough() -> None:
    names = ["a", "b", "c", "d"]
    with pytest.raises(OptionError, match=r"a layer, found none that does; names look like a, b, c$"):
        check_patterns(Options(only=("x",)), lambda pattern: pattern in names, "a layer", names)
    with pytest.raises(OptionError, match=r"names look like none$"):
        check_patterns(Options(only=("x",)), lambda _: False, "a layer", [])
