"""The page follows from the figures alone, byte for byte, and says what was not measured."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from accuracy.figures import Figure, Figures, case_of, dense_case
from accuracy.networks import NETWORKS
from accuracy.page import KEPT, write
from accuracy.plots import Line, plot
from accuracy.studies import SEEDS, cost_case
from sections import put

RESNET, SMOL = NETWORKS["resnet56"], NETWORKS["smollm2"]


@pytest.fixture
def figures(tmp_path: Path) -> Figures:
    made = Figures(tmp_path / "figures.json")
    made.put(dense_case("resnet56"), Figure(93.39, 1.0, 1.0, made="programs of a test"))
    for budget, metric in zip(RESNET.budgets, (89.37, 75.0, 30.0), strict=True):
        made.put(case_of("resnet56", "paper", budget, RESNET.samples), Figure(metric, budget.target.value, 0.5))
    half, least = RESNET.budgets[1:]
    made.put(case_of("resnet56", "balanced", half, RESNET.samples), Figure(91.0, 0.5, 0.5))
    made.put(case_of("resnet56", "torch-l1", half, 0), Figure(12.08, 0.51, 0.5))
    made.put(case_of("resnet56", "torch-l1", least, 0), Figure(None, note="leaves 0.40 of the MACs at least"))
    for budget, metric in zip(SMOL.budgets, (29.0, 66.0), strict=True):
        made.put(case_of("smollm2", "balanced", budget, SMOL.samples), Figure(metric, 0.9, 0.9))
    return made


@pytest.fixture
def page(figures: Figures, tmp_path: Path) -> str:
    write(figures, tmp_path / "results.md")
    return (tmp_path / "results.md").read_text(encoding="utf-8")


def test_a_row_has_a_cell_for_each_size(page: str) -> None:
    assert "| method | macs=0.7 | macs=0.5 | macs=0.3 |" in page
    assert "| the paper's method | 89.37 | 75.00 | 30.00 |" in page
    assert "The dense network has **93.39**" in page


def test_what_was_not_measured_says_so(page: str) -> None:
    assert "| `onnxsim.pruning`, Wanda | not measured | not measured | not measured |" in page


def test_another_share_than_asked_for_and_a_reason_are_said(page: str) -> None:
    assert "| Torch-Pruning, L1 magnitude | not measured | 12.08 (at 0.510) | - |" in page
    assert "- Torch-Pruning, L1 magnitude, macs=0.3: leaves 0.40 of the MACs at least" in page


def test_goals_are_judged_by_the_direction_of_the_metric(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith(("| ResNet-56", "| SmolLM2")) and "= " in line]
    assert [row.split(" | ")[2:4] + row.split(" | ")[-1:] for row in rows] == [
        ["macs=0.5", ">= 92.4", "no |"],
        ["macs=0.3", ">= 90", "not measured |"],
        ["MLP neurons -25%", "<= 30", "yes |"],
        ["MLP neurons -50%", "<= 45", "no |"],
    ]


def test_the_best_rival_is_named_and_the_default_judged(figures: Figures, tmp_path: Path) -> None:
    # What tests better than the default is not taken for it.
    figures.put(case_of("resnet56", "best", RESNET.budgets[1], RESNET.samples), Figure(93.0, 0.5, 0.5))
    write(figures, tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| 12.08 (Torch-Pruning, L1 magnitude) | 75.00 | 91.00 | no |" in page


def test_seeds_have_mean_and_deviation(figures: Figures, tmp_path: Path) -> None:
    for seed in SEEDS:
        case = case_of("resnet56", "paper", RESNET.budgets[1], RESNET.samples, seed)
        figures.put(case, Figure(74.0 + seed, 0.5, 0.5))
    write(figures, tmp_path / "results.md")
    row = "| ResNet-56, CIFAR-10 | macs=0.5 | the paper's method | 74.00 | 75.00 | 76.00 | 75.00 ± 1.00 |"
    assert row in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_the_time_goes_somewhere(figures: Figures, tmp_path: Path) -> None:
    extra = {"ratio": 2.5, "low": 2.25, "high": 3.0, "rooms": {"rank": 0.01, "budget": 0.5, "calibration": 2.0}}
    figures.put(cost_case("resnet56", "paper"), Figure(None, extra=extra))
    write(figures, tmp_path / "results.md")
    row = "| ResNet-56, CIFAR-10 | the paper's method | 2.50 | 2.25 to 3.00 | calibration 2.00, budget 0.50 |"
    assert row in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_the_same_figures_give_the_same_bytes(figures: Figures, page: str, tmp_path: Path) -> None:
    files = [tmp_path / "results.md", *sorted((tmp_path / "plots").iterdir())]
    before = [file.read_bytes() for file in files]
    write(figures, tmp_path / "results.md")
    assert [file.read_bytes() for file in files] == before
    assert [file.name for file in files[1:]] == ["resnet56.svg", "smollm2.svg"]
    assert all(f"(plots/{file.name})" in page for file in files[1:])


def test_sections_of_other_tools_stay(figures: Figures, page: str, tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    path.write_text(f"{page}\n{KEPT}\ntables\n\n## More\n\nwords\n", encoding="utf-8")
    write(figures, path)
    assert path.read_text(encoding="utf-8") == f"{page}\n{KEPT}\ntables\n\n## More\n\nwords\n"


def test_a_section_is_put_in_the_place_of_its_old_form(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Page\n\n## One\n\nold\n\n### Part\n\n## Two\n\nstays\n", encoding="utf-8")
    put("## One\n\nnew\n", path)
    put("## Three\n\nlast\n", path)
    assert path.read_text(encoding="utf-8") == "# Page\n\n## One\n\nnew\n\n## Two\n\nstays\n\n## Three\n\nlast\n"


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_plot_is_xml_with_every_point_inside_its_axes(logarithmic: bool) -> None:
    points = [(0.3, 12.0), (0.5, 120.0), (1.0, 23.0)]
    drawn = ElementTree.fromstring(plot([Line("a <b>", points, 1, 2)], "x", "y", logarithmic=logarithmic))
    space = "{http://www.w3.org/2000/svg}"
    spots = [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in drawn.iter(f"{space}circle")]
    assert len(spots) == 3
    assert all(56 < x < 530 and 16 < y < 416 for x, y in spots)
    # Larger is further right, and higher up.
    assert [x for x, _ in spots] == sorted(x for x, _ in spots)
    assert spots[0][1] > spots[2][1] > spots[1][1]
    texts = [each.text for each in drawn.iter(f"{space}text")]
    assert "a <b>" in texts
    assert {"50", "100"} <= set(texts)
