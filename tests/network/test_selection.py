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


@pytest.fixture
def exported(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network as the dynamo exporter of PyTorch would write it: names of nodes say nothing."""
    modules = {"first": "encoder.layers.0.mlp.up", "second": "encoder.layers.1.mlp.up", "last": "head"}
    for node in model.graph.node:
        module = modules.get(node.name)
        if module is not None:
            parts = module.split(".")
            paths = ["", *(".".join(parts[: end + 1]) for end in range(len(parts))), f"linear_{len(parts)}"]
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(paths))
            node.name = f"node_{node.name}"
    return model


@pytest.mark.parametrize(
    ("glob", "chosen"),
    [
        ("*mlp*", ["node_first", "node_second"]),
        ("encoder.layers.1", ["node_second"]),
        ("encoder.layers.?.mlp.up", ["node_first", "node_second"]),
        ("node_first", ["node_first"]),
        ("head", []),
    ],
)
def test_groups_are_chosen_by_the_module_they_come_from(
    exported: onnx.ModelProto, glob: str, chosen: list[str]
) -> None:
    structure = analyse(exported).structure
    for same in (structure, structure.copy()):
        assert [group.name for group in chosen_groups(same, Options(only=(glob,)))] == chosen


def test_modules_are_examples_where_the_model_names_them(exported: onnx.ModelProto) -> None:
    words = r"'\*attn\*' to match a group, node or weight, or a module, .* names look like node_first, node_second; "
    with pytest.raises(OptionError, match=words + r"modules like encoder.layers.0.mlp.up, encoder.layers.1.mlp.up$"):
        chosen_groups(analyse(exported).structure, Options(only=("*attn*",)))
