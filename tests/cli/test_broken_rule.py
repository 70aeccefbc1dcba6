"""A bug in an operator rule is told as one: by `inspect` and `prune`, in the terminal, as JSON and on the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.structure import rule_errors
from onnx_subprune.structure.context import Context
from onnx_subprune.structure.rules import RULES

Cli = Callable[..., Any]
SENTENCE = (
    "internal error of the rule for GlobalAveragePool at node 'mean': KeyError: 'no such axis'; please report this"
)
ENTRY = {"operator": "GlobalAveragePool", "node": "mean", "error": "KeyError: 'no such axis'"}


@pytest.fixture
def broken_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the rule of GlobalAveragePool have a bug, as a user meets it."""

    def broken(node: gs.Node, ctx: Context) -> None:
        raise KeyError("no such axis")

    monkeypatch.setattr(rule_errors, "RAISED", False)
    monkeypatch.setitem(RULES, ("", "GlobalAveragePool"), broken)


@pytest.mark.usefixtures("broken_rule")
def test_inspect_tells_of_a_broken_rule(cli: Cli, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "inspect.html"
    outcome = cli("inspect", model, "--report", page)
    assert outcome.code == 0
    assert SENTENCE in " ".join(outcome.out.split())
    assert "internal error of the rule for GlobalAveragePool" in page.read_text(encoding="utf-8")
    assert json.loads(cli("inspect", model, "--json").out)["rule_errors"] == [ENTRY]


@pytest.mark.usefixtures("broken_rule")
def test_prune_goes_on_and_tells_of_it(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    words = ("--calib", calib, "--target", "units=0.5", "--report", report, "--no-latency")
    outcome = cli("prune", model, tmp_path / "out.onnx", *words)
    assert outcome.code == 0
    assert SENTENCE in " ".join(outcome.out.split())
    assert "internal error of the rule for GlobalAveragePool" in report.read_text(encoding="utf-8")


def test_a_sound_model_has_no_such_entry(cli: Cli, model: Path) -> None:
    assert "rule_errors" not in json.loads(cli("inspect", model, "--json").out)
