"""Figures are measured once, and kept with all that they are figures of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from accuracy.figures import Figure, Figures, case_of, dense_case
from accuracy.methods import METHODS
from accuracy.networks import NETWORKS

HALF = NETWORKS["resnet56"].budgets[1]


def test_a_figure_is_measured_once(tmp_path: Path) -> None:
    case, calls = case_of("resnet56", "paper", HALF, 64), []

    def make() -> Figure:
        calls.append(1)
        return Figure(70.0 + len(calls), 0.5, 0.55, seconds=1.0, note="said", made="by a test", extra={"ratio": 2})

    path = tmp_path / "figures.json"
    first = Figures(path).measured(case, make)
    assert (
        Figures(path).measured(case, make) == first == Figure(71.0, 0.5, 0.55, 1.0, "said", "by a test", {"ratio": 2})
    )
    assert Figures(path).measured(case, make, again=True).metric == 72.0
    assert len(calls) == 2


def test_a_figure_without_a_metric_is_a_figure(tmp_path: Path) -> None:
    path, case = tmp_path / "figures.json", dense_case("vit")
    Figures(path).put(case, Figure(None, note="removes nothing"))
    assert Figures(path).get(case) == Figure(None, note="removes nothing")


def test_two_programs_may_fill_one_file(tmp_path: Path) -> None:
    path, cases = tmp_path / "figures.json", [dense_case("vit"), dense_case("resnet56")]
    both = [Figures(path), Figures(path)]
    for figures, case in zip(both, cases, strict=True):
        figures.put(case, Figure(50.0))
    assert [Figures(path).get(case) for case in cases] == [Figure(50.0)] * 2


def test_other_settings_are_another_case(monkeypatch: pytest.MonkeyPatch) -> None:
    before = case_of("resnet56", "paper", HALF, 64)
    changed = replace(METHODS["paper"], settings={**METHODS["paper"].settings, "ridge": 0.1})
    monkeypatch.setitem(METHODS, "paper", changed)
    assert case_of("resnet56", "paper", HALF, 64).key != before.key


@pytest.mark.parametrize("other", [{"samples": 128}, {"samples": 64, "seed": 1}, {"samples": 64, "test": 100}])
def test_samples_seed_and_test_images_are_part_of_the_case(other: dict[str, int]) -> None:
    assert case_of("resnet56", "paper", HALF, **other).key != case_of("resnet56", "paper", HALF, 64).key


def test_what_looks_at_no_data_has_one_figure_for_all_samples() -> None:
    assert case_of("resnet56", "torch-l1", HALF, 64, 0) == case_of("resnet56", "torch-l1", HALF, 128, 1)


def test_the_settings_of_our_methods_are_options() -> None:
    ours = [method for method in METHODS.values() if method.program == "onnx-subprune"]
    assert [method.options(threads=1).threads for method in ours] == [1] * len(ours)


def test_all_figures_of_the_project_are_of_known_networks() -> None:
    path = Path(__file__).resolve().parents[2] / "docs" / "results.json"
    assert path.exists()
    figures = Figures(path)
    assert all(figure.metric is not None or figure.note or figure.extra for figure in figures)
    assert all(figures.get(dense_case(name)) for name in ("resnet56",))
