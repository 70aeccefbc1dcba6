"""What each subcommand prints and writes when all is well."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_subprune
from onnx_subprune.calibration import Statistics
from onnx_subprune.model import load_model
from onnx_subprune.plan import Plan
from onnx_subprune.report.html_page import to_html

Cli = Callable[..., object]


def document(outcome) -> dict:
    """Return the one JSON document on stdout."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_prune_writes_a_smaller_model_that_is_as_it_says(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    said = document(cli("prune", model, out, "--calib", calib, "--target", "macs=0.5", "--json"))
    pruned = load_model(out)
    kept = {group["name"]: group["kept"] for group in said["groups"]}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in pruned.graph.initializer}
    assert (shapes["w1"][0], shapes["w2"][0]) == (kept["first"], kept["second"]) < (8, 12)
    assert shapes["w2"][:2] == (kept["second"], kept["first"])
    assert said["pruned"]["macs"] <= 0.5 * said["dense"]["macs"]
    # The stamp in the metadata comes after the measuring.
    assert said["pruned"]["bytes"] == pytest.approx(out.stat().st_size, abs=500)


def test_prune_says_before_and_after_and_each_group(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    said = cli("prune", model, tmp_path / "out.onnx", "--calib", calib, "--target", "units=0.5")
    lines = [line.split() for line in said.out.splitlines()]
    assert said.code == 0
    assert ["first", "8", "4", "50%"] in [line[:4] for line in lines]
    assert any(line[:1] == ["MACs"] and line[-1].endswith("%") for line in lines)


def test_a_drop_is_told_of(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    words = ("prune", model, tmp_path / "out.onnx", "--calib", calib, "--target", "drop=0.5", "--effort", "fast")
    words += ("--cost", "params")
    assert "of the samples change their largest class, of 50.00% allowed" in cli(*words).out
    said = document(cli(*words, "--json"))
    assert said["drop"]["metric"] == "same class"
    assert said["drop"]["fall"] <= 0.5
    assert said["target"].startswith("params=")


def test_report_plan_and_statistics_are_written_beside_the_model(
    cli: Cli, model: Path, calib: Path, tmp_path: Path
) -> None:
    names = {option: tmp_path / f"{option}.json" for option in ("plan", "report")}
    statistics = tmp_path / "s.safetensors"
    options = [word for option, path in names.items() for word in (f"--{option}", path)]
    words = ("prune", model, tmp_path / "out.onnx", "--calib", calib, "--target", "macs=0.5", *options)
    said = document(cli(*words, "--statistics", statistics, "--json"))
    assert json.loads(names["report"].read_text()) == said
    assert said["calibration"] == {"source": str(calib), "samples": 256, "taps": 2, "held_out": 5}
    assert said["command"][:2] == ["onnx-subprune", "prune"]
    assert Statistics.load(statistics).samples == 256
    kept = {group.name: len(group.kept) for group in Plan.load(names["plan"]).groups}
    assert kept == {group["name"]: group["kept"] for group in said["groups"]}


def test_the_same_command_writes_the_same_bytes(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        out, report = tmp_path / "out.onnx", tmp_path / "report.json"
        words = ("--calib", calib, "--target", "macs=0.5", "--samples", 200, "--seed", 3)
        words += ("--report", report, "--no-timing")
        assert cli("prune", model, out, *words).code == 0
        found.append((out.read_bytes(), report.read_bytes()))
        out.unlink()
    assert found[0] == found[1]


def test_a_report_as_a_page_holds_the_facts_of_the_document(
    cli: Cli, model: Path, calib: Path, labelled: Path, tmp_path: Path
) -> None:
    page, plan = tmp_path / "report.html", tmp_path / "plan.json"
    words = ("--calib", calib, "--data", labelled, "--target", "macs=0.5", "--report", page, "--plan", plan, "--json")
    said = document(cli("prune", model, tmp_path / "out.onnx", *words))
    assert page.read_text(encoding="utf-8") == to_html(said)
    assert said["top1"]["source"] == str(labelled)
    assert said["timing"]["inputs"] == "the first of the calibration data"
    assert said["fidelity"]["samples"] == 256
    applied = document(cli("apply", plan, model, tmp_path / "b.onnx", "--calib", calib, "--report", page, "--json"))
    assert page.read_text(encoding="utf-8") == to_html(applied)


def test_inspect_writes_a_page_of_its_document(cli: Cli, model: Path, tmp_path: Path) -> None:
    page = tmp_path / "inspect.html"
    said = document(cli("inspect", model, "--report", page, "--json"))
    assert page.read_text(encoding="utf-8") == to_html(said)
    assert "another file than MODEL" in cli("inspect", model, "--report", model).error


def test_latency_is_measured_where_it_is_asked_for(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    words = ("prune", model, tmp_path / "out.onnx", "--calib", calib, "--target", "units=0.5", "--json")
    assert "timing" not in document(cli(*words))
    briefly = document(cli(*words, brief=True))["timing"]
    assert briefly["profile"] is None
    assert briefly["pruned"]["ratio_to_first"] > 0
    assert "timing" in document(cli(*words, "--latency"))
    assert "timing" not in document(cli(*words, "--no-latency", "--report", tmp_path / "report.html"))


def test_labelled_data_are_measured_before_and_after(cli: Cli, model: Path, calib: Path, labelled: Path) -> None:
    words = ("prune", model, "--dry-run", "--calib", calib, "--target", "units=0.5", "--data")
    rows = [line.split() for line in cli(*words, labelled).out.splitlines()]
    (top1,) = [row for row in rows if row[:1] == ["top-1"]]
    assert top1[-1] == "points"
    assert "labels expected, found none" in cli(*words, calib).error


@pytest.mark.parametrize("recovery", ["channel", "none"])
def test_apply_replays_a_plan_to_the_same_bytes(
    cli: Cli, model: Path, calib: Path, tmp_path: Path, recovery: str
) -> None:
    first, second, plan, statistics = (tmp_path / name for name in ("1.onnx", "2.onnx", "p.json", "s.safetensors"))
    words = ("--target", "macs=0.5", "--recovery", recovery, "--plan", plan, "--statistics", statistics)
    assert cli("prune", model, first, "--calib", calib, *words).code == 0
    given = ("--statistics", statistics) if recovery == "channel" else ()
    assert cli("apply", plan, model, second, *given).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_saved_statistics_stand_in_for_the_data(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    first, second, statistics = (tmp_path / name for name in ("1.onnx", "2.onnx", "s.safetensors"))
    shared = ("--target", "macs=0.5", "--effort", "fast", "--statistics", statistics)
    assert cli("prune", model, first, "--calib", calib, *shared).code == 0
    saved = statistics.read_bytes()
    assert cli("prune", model, second, *shared).code == 0
    assert first.read_bytes() == second.read_bytes()
    assert statistics.read_bytes() == saved


def test_a_dry_run_writes_nothing_and_says_the_same(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    words = ("--calib", calib, "--target", "macs=0.5", "--json")
    dry = document(cli("prune", model, "--dry-run", *words))
    assert files(tmp_path) == before
    wet = document(cli("prune", model, tmp_path / "out.onnx", *words))
    assert {k: v for k, v in dry.items() if k != "command"} == {k: v for k, v in wet.items() if k != "command"}


def test_ignore_only_and_round_to_reach_the_plan(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    words = ("prune", model, "--dry-run", "--calib", calib, "--target", "units=0.4", "--json")
    kept = [
        {group["name"]: group["kept"] for group in document(cli(*words, *more))["groups"]}
        for more in ((), ("--ignore", "fir*"), ("--only", "fir*"), ("--round-to", 4))
    ]
    assert kept == [
        {"first": 3, "second": 5},
        {"first": 8, "second": 5},
        {"first": 3, "second": 12},
        {"first": 4, "second": 8},
    ]


def test_providers_are_repeated_or_separated_by_commas(cli: Cli, model: Path, calib: Path) -> None:
    words = ("prune", model, "--dry-run", "--calib", calib, "--target", "units=0.5")
    assert cli(*words, "--providers", "cpu").code == 0
    assert "'nonsense'" in cli(*words, "--providers", "cpu,nonsense").error
    assert "'nonsense'" in cli(*words, "--providers", "cpu", "--providers", "nonsense").error


def test_inspect_names_groups_and_why_others_are_frozen(cli: Cli, model: Path) -> None:
    said = document(cli("inspect", model, "--json"))
    assert [(group["name"], group["units"]) for group in said["groups"]] == [("first", 8), ("second", 12)]
    assert said["groups"][0]["consumers"] == ["second"]
    assert said["groups"][0]["macs"] == 36 * 27 * 8 + 36 * 72 * 12
    assert said["frozen"][0]["name"] == "head"
    assert "logits" in said["frozen"][0]["reasons"][0]
    assert said["prunable_share"]["macs"] == 1.0
    # Only the bias of the head stays when both groups are emptied.
    assert said["prunable_share"]["parameters"] == pytest.approx(1 - 4 / said["dense"]["parameters"])


def test_normalised_axes_shrink_only_if_asked(cli: Cli, tmp_path: Path) -> None:
    """`inspect` says how to ask, `prune` does it, and the plan that it writes holds on to it."""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,6] x) => (float[N,3] y) {
            [emb] e = MatMul(x, we)
            [norm] n = LayerNormalization(e, s)
            [head] y = MatMul(n, wh)
        }"""
    )
    for name, shape in {"we": (6, 8), "s": (8,), "wh": (8, 3)}.items():
        proto.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    model, calib, plan, first, second = (tmp_path / name for name in ("m.onnx", "c.npz", "p.json", "1.onnx", "2.onnx"))
    onnx.save(proto, model)
    np.savez(calib, x=rng.standard_normal((256, 6)).astype(np.float32))
    assert "--prune-normalised" in document(cli("inspect", model, "--json"))["frozen"][0]["reasons"][0]
    asked = document(cli("inspect", model, "--json", "--prune-normalised"))
    assert [group["name"] for group in asked["groups"]] == ["emb"]
    words = ("--calib", calib, "--target", "units=0.5")
    assert cli("prune", model, first, *words, "--prune-normalised", "--plan", plan).code == 0
    assert cli("apply", plan, model, second, "--calib", calib).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_inspect_prints_tables(cli: Cli, model: Path) -> None:
    said = cli("inspect", model)
    assert said.code == 0
    rows = [line.split() for line in said.out.splitlines()]
    assert any(row[:4] == ["first", "8", "1", "second"] for row in rows)
    assert "graph output 'logits'" in said.out
    assert "2 of 3 groups can be pruned" in said.out


def test_inspect_keeps_brackets_in_names(cli: Cli, model: Path) -> None:
    proto = onnx.load(model)
    proto.graph.node[0].name = "[bold]first[/bold] :smile:"
    onnx.save(proto, model)
    assert "[bold]first[/bold] :smile:" in cli("inspect", model).out


def test_inspect_warns_of_sizes_that_it_guessed(cli: Cli, model: Path) -> None:
    proto = onnx.load(model)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    onnx.save(proto, model)
    assert "warning: input 'x' has dynamic axes" in cli("inspect", model).err
    given = cli("inspect", model, "--input-shapes", "x:1,3,12,6", "--json")
    assert given.err == ""
    assert document(given)["groups"][0]["macs"] == 2 * (36 * 27 * 8 + 36 * 72 * 12)


def test_eval_top1_counts_right_answers(cli: Cli, model: Path, labelled: Path) -> None:
    said = document(cli("eval", model, model, "--data", labelled, "--json"))
    assert [entry["model"] for entry in said["models"]] == [str(model)] * 2
    entry = said["models"][0]
    assert entry["samples"] == 256
    assert entry["accuracy"] == entry["correct"] / 256
    assert f"{entry['correct']} / 256" in cli("eval", model, "--data", labelled).out


def test_eval_fidelity_compares_with_the_first(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert cli("prune", model, out, "--calib", calib, "--target", "units=0.5").code == 0
    words = ("eval", model, model, out, "--data", calib, "--metric", "fidelity")
    same, pruned = (entry["outputs"]["logits"] for entry in document(cli(*words, "--json"))["models"])
    assert same["relative_l2"] == 0.0
    assert 0.0 < pruned["relative_l2"] < 1.0
    assert "100.00%" in cli(*words).out


def test_demo_compares_dense_and_pruned(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    said = cli("demo", "--out", out, "--threads", 1)
    assert said.code == 0
    assert files(out) == {"dense.onnx", "pruned.onnx", "report.html", "report.json", "calibration.npz", "test.npz"}
    report = json.loads((out / "report.json").read_text())
    assert f"{report['top1']['pruned']['accuracy']:.1%}" in said.out
    assert report["top1"]["dense"]["accuracy"] > 0.93
    assert report["top1"]["pruned"]["accuracy"] > 0.8
    assert report["pruned"]["macs"] <= 0.5 * report["dense"]["macs"]
    assert "timing" not in report
    assert "Fashion-MNIST" in (out / "report.html").read_text(encoding="utf-8")
    assert load_model(out / "pruned.onnx").graph.output[0].name == "logits"


def test_doctor_finds_this_environment_fit(cli: Cli) -> None:
    said = document(cli("doctor", "--json"))
    assert said["providers"]["CPUExecutionProvider"] is None
    assert said["problems"] == []
    assert said["opset"] >= 17
    assert said["versions"]["onnx"] == onnx.__version__
    assert "CPUExecutionProvider" in cli("doctor").out


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"onnx-subprune {onnx_subprune.__version__}\n"


@pytest.mark.parametrize("command", ["inspect", "prune", "eval", "bench", "apply", "doctor", "demo"])
def test_help_of_every_command(cli: Cli, command: str) -> None:
    said = cli(command, "--help")
    assert said.code == 0
    assert "--json" in said.out


def test_json_is_alone_on_stdout_whatever_a_data_script_prints(cli: Cli, model: Path, tmp_path: Path) -> None:
    script = tmp_path / "data.py"
    script.write_text(
        "import numpy as np\nprint('loading')\n"
        "def load():\n    print('reading')\n"
        "    yield {'x': np.random.default_rng(0).standard_normal((256, 3, 6, 6), np.float32)}\n"
    )
    said = cli("prune", model, "--dry-run", "--calib", f"{script}:load", "--target", "units=0.5", "--json")
    assert document(said)["calibration"]["source"] == f"{script}:load"
    assert "reading" in said.err


def test_warnings_are_lines_on_stderr_and_in_the_document(cli: Cli, model: Path, calib: Path) -> None:
    words = ("prune", model, "--dry-run", "--calib", calib, "--target", "units=0.5", "--samples", 2, "--json")
    said = cli(*words)
    warnings = document(said)["warnings"]
    assert warnings
    assert said.err.splitlines() == [f"warning: {line}" for line in warnings]
    quiet = cli(*words, "-q")
    assert quiet.err == ""
    assert document(quiet)["warnings"] == warnings


def test_verbose_says_what_it_does(cli: Cli, model: Path, calib: Path) -> None:
    words = ("prune", model, "--dry-run", "--calib", calib, "--target", "units=0.5")
    assert "debug: " in cli(*words, "-vv").err
    assert cli(*words).err == ""
    assert logging.getLogger("onnx_subprune").handlers == []


def test_the_installed_command_works_in_a_pipe(model: Path) -> None:
    command = [sys.executable, "-c", "from onnx_subprune.cli import main; main()", "inspect", str(model), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["groups"]


def test_the_public_names_are_those_of_the_modules() -> None:
    assert sorted(onnx_subprune.__all__) == sorted(dir(onnx_subprune))
    for name in onnx_subprune.__all__:
        assert getattr(onnx_subprune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = onnx_subprune.nonsense
    assert np.isfinite(onnx_subprune.Target.parse("macs=0.5").value)
