"""`--outputs-at`: the same tensors in every command that compares networks, and one line where they are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnx_subprune.cli.app import app

Cli = Callable[..., Any]
POINT = [{"tensor": "f", "outputs": [], "reason": "asked for"}]


@pytest.fixture
def pruned(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """`pruned(*options)` prunes the model of these tests; the result's path and document."""

    def prune(*options: object, name: str = "out") -> tuple[Path, dict[str, Any]]:
        out = tmp_path / f"{name}.onnx"
        target = () if "--target" in options else ("--target", "macs=0.6")
        words = ("--calib", calib, *target, "--threads", 1, "--json", *options)
        outcome = cli("prune", model, out, *words)
        assert outcome.code == 0, outcome.err
        return out, json.loads(outcome.out)

    return prune


def test_a_pruned_network_and_its_plan_hold_to_the_tensors(
    cli: Cli, model: Path, calib: Path, tmp_path: Path, pruned: Callable[..., tuple[Path, dict[str, Any]]]
) -> None:
    plan, again = tmp_path / "plan.json", tmp_path / "again.onnx"
    out, document = pruned("--outputs-at", "c", "--outputs-at", "c", "--plan", plan)
    assert document["compared_at"] == [{**POINT[0], "tensor": "c"}]
    assert document["options"]["outputs_at"] == ["c", "c"]
    # The second Conv gives the tensor: its channels stay, and the first loses what the target asks for.
    assert {group["name"]: group["kept"] for group in document["groups"]}.keys() == {"first"}
    assert "second" in {group["name"] for group in document["frozen"]}
    assert json.loads(plan.read_text())["outputs_at"] == ["c", "c"]
    outcome = cli("apply", plan, model, again, "--calib", calib, "--threads", 1, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["compared_at"] == document["compared_at"]
    assert again.read_bytes() == out.read_bytes()


def test_without_the_option_nothing_changes(tmp_path: Path, pruned: Callable[..., tuple[Path, dict[str, Any]]]) -> None:
    plan = tmp_path / "plan.json"
    _, document = pruned("--plan", plan)
    assert "compared_at" not in document
    assert "outputs_at" not in plan.read_text()
    # An output that is named is where networks are compared in any case.
    assert pruned(name="a")[0].read_bytes() == pruned("--outputs-at", "logits", name="b")[0].read_bytes()


def test_losses_are_measured_where_it_says(pruned: Callable[..., tuple[Path, dict[str, Any]]]) -> None:
    documents = [pruned(name="a")[1], pruned("--outputs-at", "d", name="b")[1]]
    losses = [
        next(group["curve"]["loss"] for group in document["groups"] if group["name"] == "first")
        for document in documents
    ]
    assert losses[0] != losses[1]


def test_inspect_shows_them(cli: Cli, model: Path) -> None:
    outcome = cli("inspect", model, "--outputs-at", "f")
    assert "compared at 'f': asked for" in outcome.out
    assert "networks are compared at 'f'" in outcome.out
    assert json.loads(cli("inspect", model, "--outputs-at", "f", "--json").out)["compared_at"] == POINT


def test_a_factorisation_is_held_to_the_dense_network_there(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    words = ("--calib", calib, "--target", "macs=0.5", "--outputs-at", "f", "--json")
    outcome = cli("factorise", model, tmp_path / "out.onnx", *words)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["compared_at"] == POINT


def test_fidelity_is_taken_there(
    cli: Cli, model: Path, calib: Path, pruned: Callable[..., tuple[Path, dict[str, Any]]]
) -> None:
    out, _ = pruned("--outputs-at", "f")
    words = (model, out, "--data", calib, "--threads", 1)
    outcome = cli("eval", *words, "--metric", "fidelity", "--outputs-at", "f", "--json")
    assert outcome.code == 0, outcome.err
    (entry,) = json.loads(outcome.out)["models"]
    assert entry["points"]["f"]["relative_l2"] > 0
    assert entry["outputs"]["logits"]["relative_l2"] is None
    refused = cli("eval", *words, "--metric", "top1", "--outputs-at", "f")
    assert refused.code == 1
    assert refused.error.startswith("error: expected --outputs-at with the metric fidelity only, found 'top1'")


def test_a_drop_without_labels_counts_the_classes_there(pruned: Callable[..., tuple[Path, dict[str, Any]]]) -> None:
    """The largest of the features of a sample: those stay twelve, and each may be largest."""
    _, document = pruned("--target", "drop=0.3", "--effort", "fast", "--outputs-at", "f")
    assert 0 < document["drop"]["fall"] <= 0.3
    assert [group["name"] for group in document["groups"]] == ["first"]


@pytest.mark.parametrize("command", ["prune", "apply", "inspect", "eval", "factorise"])
def test_an_unknown_tensor_is_one_line_before_any_work(
    cli: Cli, model: Path, tmp_path: Path, command: str, pruned: Callable[..., tuple[Path, dict[str, Any]]]
) -> None:
    """The calibration data are a script that must not run."""
    plan, out, script = tmp_path / "plan.json", tmp_path / "new.onnx", tmp_path / "data.py"
    pruned("--plan", plan)
    script.write_text("def data():\n    raise RuntimeError('this ran')\n")
    data = ("--calib", f"{script}:data")
    words: dict[str, tuple[object, ...]] = {
        "prune": (model, out, *data, "--target", "macs=0.6"),
        "apply": (plan, model, out, *data),
        "inspect": (model,),
        "eval": (model, model, "--metric", "fidelity", "--data", f"{script}:data"),
        "factorise": (model, out, *data, "--target", "macs=0.6"),
    }
    outcome = cli(command, *words[command], "--outputs-at", "logit")
    assert outcome.code == 1
    assert "found 'logit', which the model does not have; the nearest is 'logits'" in outcome.error
    assert not out.exists()


def test_every_command_that_compares_networks_has_the_option() -> None:
    with_option = {
        command.callback.__name__  # type: ignore[union-attr]
        for command in app.registered_commands
        if "outputs_at" in command.callback.__annotations__  # type: ignore[union-attr]
    }
    assert with_option == {"prune", "apply", "inspect", "evaluate", "factorise"}


def test_the_tensor_is_still_there_in_the_file(pruned: Callable[..., tuple[Path, dict[str, Any]]]) -> None:
    out, _ = pruned("--outputs-at", "c")
    graph = onnx.load(out).graph
    assert "c" in {name for node in graph.node for name in node.output}
    assert [value.name for value in graph.output] == ["logits"]
    rows = next(tensor.dims[0] for tensor in graph.initializer if tensor.name == "w2")
    assert rows == 12
