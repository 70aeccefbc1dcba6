"""`doctor`: what it says of an environment, and its exit code where that is unfit."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from onnx_subprune.cli import doctor as module
from onnx_subprune.report.environment import Environment

Cli = Callable[..., Any]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
FIT = Environment(
    versions={"python": "3.12.1", "numpy": "2.1.0"},
    runtimes=("onnxruntime",),
    providers={
        "CUDAExecutionProvider": "provider 'CUDAExecutionProvider' needs a driver",
        "CPUExecutionProvider": None,
    },
    opset=21,
    ir_version=10,
)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`environment(**entries)` puts one with these entries in the place of this machine's."""

    def put(multiples: dict[str, dict[str, int]] | None = None, **entries: object) -> None:
        monkeypatch.setattr(module.report, "examine", lambda: Environment(**{**vars(FIT), **entries}))
        monkeypatch.setattr(module, "known_multiples", lambda: multiples or {})

    return put


def test_a_fit_environment_is_told_of_and_the_code_is_nought(cli: Cli, environment: Callable[..., None]) -> None:
    environment({"CPUExecutionProvider, 1 thread": {"conv": 8}})
    outcome = cli("doctor", "--json")
    document = json.loads(outcome.out)
    assert outcome.code == 0
    assert document["format"] == "onnx_subprune.doctor/1"
    assert document["versions"] == FIT.versions
    assert document["providers"] == FIT.providers
    assert (document["opset"], document["ir_version"]) == (21, 10)
    assert document["multiples"] == {"CPUExecutionProvider, 1 thread": {"conv": 8}}
    assert document["problems"] == []
    assert outcome.err == ""


def test_the_table_says_why_a_provider_does_not_load(cli: Cli, environment: Callable[..., None]) -> None:
    environment({"cpu": {"conv": 8, "matmul": 16}})
    lines = [line.split() for line in cli("doctor").out.splitlines()]
    assert ["numpy", "2.1.0"] in lines
    assert ["CPUExecutionProvider", "loads"] in lines
    assert ["CUDAExecutionProvider", "needs", "a", "driver"] in lines
    assert ["newest", "opset", "that", "can", "be", "read", "21"] in lines
    assert ["fast", "multiples", "(cpu)", "conv", "8,", "matmul", "16"] in lines


@pytest.mark.parametrize(("entries", "line"), [
    ({"runtimes": ("onnxruntime", "onnxruntime-gpu")}, "which overwrite each other; run 'pip uninstall onnxruntime "),
    ({"providers": {}}, "expected ONNX Runtime to run on the CPU, found: it is not in this build; install it again"),
    ({"providers": {CPU: "it crashed"}}, "found: it crashed; install it again"),
    ({"opset": None}, "expected ONNX Runtime to read a tiny model, found that it reads none; install it again"),
    ({"ir_version": None}, "found that it reads none; install it again"),
])  # fmt: skip
def test_an_unfit_one_is_one_line_after_the_table(
    cli: Cli, environment: Callable[..., None], entries: dict[str, object], line: str
) -> None:
    environment(**entries)
    outcome = cli("doctor")
    assert outcome.code == 1
    assert outcome.error.startswith("error: expected ")
    assert line in outcome.error
    assert "problem" in outcome.out, "the table is printed all the same"


def test_json_holds_every_problem_where_the_line_holds_the_first(cli: Cli, environment: Callable[..., None]) -> None:
    environment(runtimes=("a", "b", "c"), providers={}, opset=None)
    outcome = cli("doctor", "--json")
    problems = json.loads(outcome.out)["problems"]
    assert len(problems) == 2
    assert "a and b and c" in problems[0]
    assert outcome.error == f"error: {problems[0]}"
