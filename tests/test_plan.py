"""Plans: saved as text, read back, refused where they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_subprune.errors import OutputError, PlanError
from onnx_subprune.options import RecoveryOptions
from onnx_subprune.plan import Plan, PlannedGroup

CHANNEL = RecoveryOptions(select="zca", recovery="channel", one_pass=True, rows=32)
PLAN = Plan("f" * 64, "macs=0.5", (PlannedGroup("a", 4, (0, 2)), PlannedGroup("b", 2, (0, 1))), CHANNEL)


def test_a_plan_reads_back_equal(tmp_path: Path) -> None:
    PLAN.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == PLAN
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_plan_has_a_line_per_group_so_that_one_can_read_and_compare_it() -> None:
    lines = PLAN.to_json().splitlines()
    assert sum('"kept"' in line for line in lines) == len(PLAN.groups)


def test_a_group_may_keep_nothing(tmp_path: Path) -> None:
    whole = replace(PLAN, groups=(PlannedGroup("a", 4, ()), PLAN.groups[1]))
    whole.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == whole


def test_removes_tells_whether_a_unit_goes() -> None:
    assert PLAN.removes
    assert not Plan("f", "macs=1", (PlannedGroup("b", 2, (0, 1)),), RecoveryOptions(recovery="none")).removes


@pytest.mark.parametrize("content", ["", "no json", "[]", "{}", '{"format": "other"}'])
def test_what_is_not_a_plan_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(PlanError, match="expected"):
        Plan.load(path)


@pytest.mark.parametrize("kept", [[4], [-1], ["x"], None])
def test_units_that_are_not_there_are_refused(tmp_path: Path, kept: object) -> None:
    data = json.loads(PLAN.to_json())
    del data["checksum"]
    data["groups"][0]["kept"] = kept
    (tmp_path / "plan.json").write_text(json.dumps(data))
    with pytest.raises(PlanError, match="damage"):
        Plan.load(tmp_path / "plan.json")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="expected a plan at"):
        Plan.load(tmp_path / "none.json")
    with pytest.raises(OutputError, match="cannot write the plan"):
        PLAN.save(tmp_path / "missing" / "plan.json")


def test_a_plan_of_the_first_release_is_read_with_the_recovery_of_its_time(tmp_path: Path) -> None:
    data = json.loads(PLAN.to_json())
    for name in ("prune_normalised", "one_pass", "rows", "probes", "sweeps", "checksum"):
        del data[name]
    (tmp_path / "plan.json").write_text(json.dumps(data))
    first = RecoveryOptions(select="zca", recovery="channel", ridge=1e-6, one_pass=True, rows=32)
    assert Plan.load(tmp_path / "plan.json").options == first


def test_the_file_is_flat_and_its_entries_keep_their_order() -> None:
    assert PLAN.to_json().splitlines()[:12] == [
        "{",
        '  "format": "onnx_subprune.plan/1",',
        f'  "fingerprint": "{"f" * 64}",',
        '  "target": "macs=0.5",',
        '  "select": "zca",',
        '  "recovery": "channel",',
        '  "ridge": 1e-06,',
        '  "prune_normalised": false,',
        '  "one_pass": true,',
        '  "rows": 32,',
        '  "probes": 16,',
        '  "sweeps": 1,',
    ]


def test_tensors_to_compare_at_are_in_a_plan_where_there_are_any(tmp_path: Path) -> None:
    assert "outputs_at" not in PLAN.to_json()
    named = replace(PLAN, options=replace(PLAN.options, outputs_at=("logits", "boxes")))
    named.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == named
    data = json.loads(named.to_json())
    del data["checksum"]
    (tmp_path / "plan.json").write_text(json.dumps({**data, "outputs_at": "logits"}))
    with pytest.raises(PlanError, match=r"found a damaged entry \('outputs_at' is 'logits' and no list\)"):
        Plan.load(tmp_path / "plan.json")


def test_every_bit_of_a_plan_counts(tmp_path: Path) -> None:
    """A flipped bit is an error, or changes nothing that a plan says."""
    path, text = tmp_path / "plan.json", PLAN.to_json().encode()
    errors: list[PlanError] = []
    for place in range(len(text)):
        for bit in range(8):
            path.write_bytes(text[:place] + bytes([text[place] ^ 1 << bit]) + text[place + 1 :])
            try:
                loaded = Plan.load(path)
            except PlanError as error:
                errors.append(error)
            else:
                assert loaded == PLAN
    assert len(errors) > 0.9 * 8 * len(text)
    assert all(len(str(error).splitlines()) == 1 for error in errors)


def test_a_plan_without_a_checksum_may_be_edited(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(PLAN.to_json().replace("[0, 2]", "[1, 2]"))
    with pytest.raises(PlanError, match="delete its line 'checksum'"):
        Plan.load(path)
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "checksum" not in line))
    assert Plan.load(path).groups[0].kept == (1, 2)


def test_the_checksum_is_a_line_of_its_own_and_all_else_is_as_before() -> None:
    lines = PLAN.to_json().splitlines()
    assert lines[12].startswith('  "checksum": "')
    assert lines[13] == '  "groups": ['


def test_widths_are_units_that_stay() -> None:
    assert PLAN.widths == {"a": 2, "b": 2}
    assert PLAN.only("b").widths == {"a": 4, "b": 2}
