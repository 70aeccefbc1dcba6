"""How `prune` and `apply` end: what is written, what is measured, and what is told."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.cli.outcome import Ending, labelled_data
from onnx_subprune.cli.terminal import Terminal
from onnx_subprune.errors import DataError, ModelError, OutputError
from onnx_subprune.evaluate import Latency, NodeTime, Profile
from onnx_subprune.evaluate.comparison import Measured, Timing
from onnx_subprune.model import input_specs, load_model


class Pruned:
    """A result that notes what is asked of it."""

    def __init__(
        self, warnings: tuple[str, ...] = (), latency: object = None, *, removes: bool = True, size: int = 9
    ) -> None:
        self.warnings = warnings
        self.statistics = self.plan = self
        self.latency, self.removes = latency, removes
        self.dense = SimpleNamespace(bytes=size)
        self.saved: list[str] = []
        self.asked: list[dict[str, Any]] = []

    def save(self, path: Path) -> None:
        self.saved.append(path.name)

    def measure(self, data: Any, **options: Any) -> Measured:
        self.asked.append({"data": data, **options})
        return Measured()

    def document(self, *, measured: Measured | None, command: Any, source: str) -> dict[str, Any]:
        costs = {"macs": 100, "parameters": 10, "bytes": 40}
        return {
            "format": "onnx_subprune.report/1",
            "dense": costs,
            "pruned": {"macs": 50, "parameters": 5, "bytes": 20},
            "operators": {"dense": {"Conv": 1}, "pruned": {"Conv": 1}},
            "groups": [{"name": "g", "units": 16, "kept": 9, "consumers": [], "entries": 1}],
            "errors": {},
            "latency": None,
            "options": {"round_to": None},
            "command": list(command),
            "source": source,
            **({} if measured is None else measured.document()),
        }


def ending(written: dict[str, Path | None] | None = None, **options: Any) -> Ending:
    return Ending(written or {}, "calib.npz", "calib.npz", **options)


def told(end: Ending, result: Pruned, measured: Measured | None, *, as_json: bool = False) -> str:
    stdout = io.StringIO()
    end.finish(result, measured, Terminal(stdout, as_json, False))
    return stdout.getvalue()


TIMING = Timing(
    (Latency(2.0, 2.1, 2.0, 500.0, 1.0), Latency(1.0, 1.1, 1.0, 1000.0, 0.5)),
    (
        Profile((NodeTime("c", "FusedConv", "CPUExecutionProvider", 0.002),), 0.002, 0.0, 3, ("CPUExecutionProvider",)),
        Profile((NodeTime("c", "FusedConv", "CPUExecutionProvider", 0.001),), 0.001, 0.0, 3, ("CPUExecutionProvider",)),
    ),
    {"x": (1, 3)},
    "random numbers",
    1,
)


def test_only_what_was_asked_for_is_saved() -> None:
    everything = {"OUT": Path("o.onnx"), "--plan": Path("p.json"), "--statistics": Path("s.safetensors")}
    for written, names in ((everything, {"o.onnx", "p.json", "s.safetensors"}), ({"OUT": None}, set())):
        result = Pruned()
        told(ending(written), result, None)
        assert set(result.saved) == names


def test_a_dry_run_saves_nothing_and_writes_no_report(tmp_path: Path) -> None:
    result, path = Pruned(), tmp_path / "report.json"
    dry = ending({"OUT": tmp_path / "o.onnx", "--report": path}, dry=True)
    assert "MACs" in told(dry, result, None)
    assert result.saved == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("report", "timing", "asked"), [
    (None, None, (True, True)),  # nothing was asked for: both are timed briefly
    ("r.json", None, (True, True)),
    ("r.html", None, (True, False)),
    ("r.HTM", None, (True, False)),
    ("r.html", False, (False, False)),
    ("r.json", True, (True, False)),
    (None, True, (True, False)),
    (None, False, None),
])  # fmt: skip
def test_a_page_or_the_option_asks_for_measurements(
    report: str | None, timing: bool | None, asked: tuple[bool, bool] | None
) -> None:
    result = Pruned()
    end = ending({"--report": None if report is None else Path(report)}, timing=timing)
    measured = end.measure(result, None)
    assert (measured is None) == (asked is None)
    assert [(call["data"], call["latency"], call["brief"]) for call in result.asked] == (
        [] if asked is None else [("calib.npz", *asked)]
    )


@pytest.mark.parametrize("result", [Pruned(latency="measured"), Pruned(removes=False), Pruned(size=2 << 30)])
def test_what_is_known_already_is_not_timed(result: Pruned) -> None:
    assert ending().measure(result, None) is None
    assert ending(timing=True).measure(result, None) is not None


def test_labelled_data_alone_ask_for_accuracy_and_not_for_the_calibration_data(labelled: Path, model: Path) -> None:
    result, data = Pruned(), labelled_data(str(labelled), model)
    assert ending(labelled=data, timing=False).measure(result, None) is not None
    assert result.asked == [{"data": None, "labelled": data, "latency": False, "brief": False, "progress": None}]


def test_tables_lines_and_the_command_are_told() -> None:
    end = ending(command=("onnx-subprune", "prune"))
    text = told(end, Pruned(), None)
    assert "50.0%" in text
    assert "latency was not measured (--timing does): 1 of 1 widths" in text
    document = json.loads(told(end, Pruned(), None, as_json=True))
    assert (document["command"], document["source"]) == (["onnx-subprune", "prune"], "calib.npz")


def test_operators_are_told_only_where_latency_was_asked_for() -> None:
    measured = Measured(timing=TIMING)
    assert "FusedConv" in told(ending(timing=True), Pruned(), measured)
    assert "FusedConv" not in told(ending(), Pruned(), measured)
    assert told(ending(), Pruned(), measured).startswith("faster: 50% of the dense model's time (x 1x3; threads: 1)")
    assert "FusedConv" not in told(ending(timing=True), Pruned(), Measured())


def test_warnings_and_what_could_not_be_measured_are_lines(caplog: pytest.LogCaptureFixture) -> None:
    measured = Measured(left={"latency": "no such provider"}, warnings=("it is slow",))
    told(ending(), Pruned(("few rows",)), measured)
    assert [record.getMessage() for record in caplog.records] == [
        "few rows",
        "it is slow",
        "latency was not measured: no such provider",
    ]


def test_the_report_is_the_document(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    text = told(ending({"--report": path}), Pruned(), Measured(left={"accuracy": "no labels"}), as_json=True)
    assert path.read_text(encoding="utf-8") == text
    assert json.loads(text)["not_measured"] == {"accuracy": "no labels"}


def test_a_report_that_cannot_be_written_is_an_error_and_nothing_was_printed(tmp_path: Path) -> None:
    stdout = io.StringIO()
    end = ending({"--report": tmp_path / "gone" / "report.json"})
    with pytest.raises(OutputError, match="cannot write the report"):
        end.finish(Pruned(), None, Terminal(stdout, True, False))
    assert stdout.getvalue() == ""


def test_a_result_that_cannot_be_printed_is_not_written(tmp_path: Path) -> None:
    end = ending({"--report": tmp_path / "report.json"})
    with open("/dev/full", "w", encoding="utf-8") as full, pytest.raises(OutputError, match="cannot print the result"):
        end.finish(Pruned(), None, Terminal(full, True, False))
    assert not list(tmp_path.iterdir())


def test_labels_come_with_the_data(labelled: Path, model: Path) -> None:
    data = labelled_data(str(labelled), model)
    assert data is not None
    assert np.array_equal(data.labels, np.arange(256) % 4)
    assert data.source == str(labelled)
    assert labelled_data(None, Path("no model is looked at")) is None


def test_data_without_labels_are_refused_before_the_long_work(calib: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"calib\.npz: labels expected, found none; add an array 'labels'"):
        labelled_data(str(calib), model)
    with pytest.raises(DataError, match="found nothing there"):
        labelled_data(str(tmp_path / "gone.npz"), model)
    with pytest.raises(ModelError):
        labelled_data(str(calib), tmp_path / "gone.onnx")


def test_labels_of_another_number_of_samples_are_refused(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "odd.npz", x=np.zeros((5, 3, 6, 6), np.float32), labels=np.zeros(4, np.int64))
    with pytest.raises(DataError, match="a label for each of 5 samples expected"):
        labelled_data(str(tmp_path / "odd.npz"), model)


def test_an_ending_is_measured_on_what_was_opened(calib: Path, model: Path) -> None:
    """A data set that is open already is handed on as it is."""
    data = open_data(str(calib), input_specs(load_model(model)), samples=3)
    result = Pruned()
    ending(labelled=data, timing=True).measure(result, print)
    assert result.asked == [{"data": "calib.npz", "labelled": data, "latency": True, "brief": False, "progress": print}]
