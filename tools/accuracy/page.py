"""docs/results.md, from the figures alone: a section for each network, then samples, seeds, cost and how it was done.

Other tools write sections of the same page; from the first of them on (`KEPT`) the page is left as it is.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from accuracy.figures import Case, Figure, Figures, case_of, dense_case
from accuracy.methods import METHODS, ONNXSIM, OURS, TORCH, Method
from accuracy.networks import NETWORKS, Budget, Network, budget_of
from accuracy.plots import Line, plot
from accuracy.studies import COSTED, SAMPLED, SAMPLES, SEEDED, SEEDS, cost_case
from accuracy.text import COST, GOALS, HOW, INTRODUCTION, NOTES, SAMPLES_TEXT, SEEDS_TEXT, WHY

__all__ = ["KEPT", "write"]

KEPT = "## The paper's tables\n"
NOT_MEASURED, NONE = "not measured", "-"
# A share further from what was asked for than this is said in the table.
CLOSE = 0.0026
# Rooms below this share of plain inference are left out.
SEEN = 0.05
_OURS = [key for key, method in METHODS.items() if method.program == OURS and not method.baseline]
_RIVALS = [key for key, method in METHODS.items() if method.program != OURS]
_DASHES = {OURS: 0, ONNXSIM: 1, TORCH: 2}


def write(figures: Figures, page: Path) -> None:
    """Write the page and its plots; what other tools wrote in it stays."""
    old = page.read_text(encoding="utf-8") if page.exists() else ""
    rest = old[old.index(KEPT) :] if KEPT in old else ""
    plots = page.parent / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        drawing = _plot(figures, name)
        if drawing is not None:
            (plots / f"{name}.svg").write_text(drawing, encoding="utf-8")
    text = "\n".join(_sections(figures))
    page.write_text(f"{text}\n{rest}" if rest else text, encoding="utf-8")


def _sections(figures: Figures) -> Iterator[str]:
    yield INTRODUCTION
    yield GOALS
    yield _goals(figures)
    yield WHY
    for name, network in NETWORKS.items():
        yield from _network(figures, name, network)
    yield from _samples(figures)
    yield from _seeds(figures)
    yield from _costs(figures)
    made = sorted({figure.made for figure in figures if figure.made})
    yield HOW.format(made="; ".join(made) or NOT_MEASURED)


@dataclass(frozen=True)
class _Found:
    """A figure with the method it belongs to."""

    method: Method
    figure: Figure
    metric: float


def _goals(figures: Figures) -> str:
    head = ["network", "dense", "size", "goal", "best rival", "the paper's method", "onnx-subprune", "goal reached"]
    return _table(head, _goal_rows(figures))


def _goal_rows(figures: Figures) -> Iterator[list[str]]:
    for name, network in NETWORKS.items():
        dense = figures.get(dense_case(name))
        for budget in (each for each in network.budgets if each.goal is not None):
            # The default, not the one of ours that tests best.
            ours = _best(figures, name, budget, ["balanced"])
            rivals = _best(figures, name, budget, [key for key, m in METHODS.items() if m.program != OURS])
            paper = _at(figures, name, "paper", budget)
            yield [
                network.title,
                _number(network, dense),
                budget.name,
                f"{'>=' if network.rising else '<='} {budget.goal:g}",
                _named(network, rivals),
                _number(network, paper),
                NONE if ours is None else _number(network, ours.figure),
                _reached(network, budget, ours),
            ]


def _best(figures: Figures, name: str, budget: Budget, methods: Iterable[str]) -> _Found | None:
    """The best figure of some methods."""
    found = []
    for key in methods:
        figure = _at(figures, name, key, budget)
        if figure is not None and figure.metric is not None:
            found.append(_Found(METHODS[key], figure, figure.metric))
    sign = 1 if NETWORKS[name].rising else -1
    return max(found, key=lambda each: sign * each.metric) if found else None


def _reached(network: Network, budget: Budget, best: _Found | None) -> str:
    if best is None or budget.goal is None:
        return NOT_MEASURED
    above = best.metric >= budget.goal
    return "yes" if above is network.rising or best.metric == budget.goal else "no"


def _named(network: Network, found: _Found | None) -> str:
    return NONE if found is None else f"{_number(network, found.figure)} ({found.method.label})"


def _network(figures: Figures, name: str, network: Network) -> Iterator[str]:
    dense = _number(network, figures.get(dense_case(name)))
    yield f"## {network.title}\n"
    yield (
        f"Measured: {network.metric}. The dense network has **{dense}**. Calibration: {network.samples:,} "
        f"{network.unit}.\n"
    )
    goals = ["goal", *(f"{budget.goal:g}" if budget.goal is not None else "" for budget in network.budgets)]
    rows = [goals, *([method.label, *_cells(figures, name, key)] for key, method in METHODS.items())]
    yield _table(["method", *(budget.name for budget in network.budgets)], rows)
    notes = list(_notes(figures, name))
    if notes:
        yield NOTES
        yield "\n".join(notes) + "\n"
    if any(figures.get(_case(name, key, budget)) for key in METHODS for budget in network.budgets):
        yield f"![{network.title}: the metric against the share of the MACs](plots/{name}.svg)\n"


def _cells(figures: Figures, name: str, key: str) -> Iterator[str]:
    for budget in NETWORKS[name].budgets:
        figure = _at(figures, name, key, budget)
        yield _number(NETWORKS[name], figure) + _off(figure, budget)


def _off(figure: Figure | None, budget: Budget) -> str:
    """The share that was measured, where it is not quite what was asked for."""
    share = None if figure is None else figure.macs if budget.equal.kind == "macs" else figure.parameters
    if share is None or abs(share - budget.equal.value) <= CLOSE:
        return ""
    return f" (at {share:.3f})"


def _notes(figures: Figures, name: str) -> Iterator[str]:
    """A line for each thing that a method said, with the budgets at which it said so."""
    said: dict[tuple[str, str], list[str]] = {}
    for key, method in METHODS.items():
        for budget in NETWORKS[name].budgets:
            figure = _at(figures, name, key, budget)
            if figure is not None and figure.note:
                said.setdefault((method.label, figure.note), []).append(budget.name)
    for (label, note), budgets in said.items():
        yield f"- {label}, {', '.join(budgets)}: {note}"


def _plot(figures: Figures, name: str) -> str | None:
    network = NETWORKS[name]
    start = _points([figures.get(dense_case(name))])
    lines = []
    for number, (key, method) in enumerate(METHODS.items()):
        points = _points([_at(figures, name, key, budget) for budget in network.budgets])
        if points:
            lines.append(Line(method.label.replace("`", ""), [*points, *start], number, _DASHES[method.program]))
    if not lines:
        return None
    label = network.metric.split(",")[0].split(" on ")[0]
    return plot(lines, "share of the MACs", label, logarithmic=not network.rising)


def _points(found: Iterable[Figure | None]) -> list[tuple[float, float]]:
    known = [(each.macs, each.metric) for each in found if each is not None]
    return [(macs, metric) for macs, metric in known if macs is not None and metric is not None]


def _samples(figures: Figures) -> Iterator[str]:
    name, budget_name = SAMPLED
    network, budget = NETWORKS[name], budget_of(*SAMPLED)
    yield SAMPLES_TEXT.format(network=network.title, budget=budget_name)
    studied = {key: method for key, method in METHODS.items() if method.studied}
    rows = [
        [method.label, *(_number(network, figures.get(_case(name, key, budget, count))) for count in SAMPLES)]
        for key, method in studied.items()
    ]
    yield _table(["method", *map(str, SAMPLES)], rows)


def _seeds(figures: Figures) -> Iterator[str]:
    yield SEEDS_TEXT.format(seeds=len(SEEDS))
    studied = [key for key, method in METHODS.items() if method.studied]
    rows = [_seed_row(figures, name, budget, key) for name, budget in SEEDED for key in studied]
    yield _table(["network", "size", "method", *(f"subset {seed}" for seed in SEEDS), "mean ± deviation"], rows)


def _seed_row(figures: Figures, name: str, budget: str, key: str) -> list[str]:
    found = [figures.get(_case(name, key, budget_of(name, budget), seed=seed)) for seed in SEEDS]
    values = [each.metric for each in found if each is not None and each.metric is not None]
    spread = NOT_MEASURED
    if len(values) > 1:
        spread = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    return [
        NETWORKS[name].title,
        budget,
        METHODS[key].label,
        *(_number(NETWORKS[name], each) for each in found),
        spread,
    ]


def _costs(figures: Figures) -> Iterator[str]:
    yield COST
    studied = [key for key, method in METHODS.items() if method.studied]
    rows = [_cost_row(figures, name, key) for name in COSTED for key in studied]
    yield _table(["network", "method", "of plain inference", "between", "where it goes (of plain inference)"], rows)


def _cost_row(figures: Figures, name: str, key: str) -> list[str]:
    figure = figures.get(cost_case(name, key))
    if figure is None:
        return [NETWORKS[name].title, METHODS[key].label, NOT_MEASURED, NONE, NONE]
    ratio, low, high = (figure.extra[part] for part in ("ratio", "low", "high"))
    rooms = sorted(figure.extra["rooms"].items(), key=lambda room: -room[1])
    goes = ", ".join(f"{room} {share:.2f}" for room, share in rooms if share >= SEEN)
    return [NETWORKS[name].title, METHODS[key].label, f"{ratio:.2f}", f"{low:.2f} to {high:.2f}", goes]


def _case(name: str, key: str, budget: Budget, samples: int = 0, seed: int = 0) -> Case:
    return case_of(name, key, budget, samples or NETWORKS[name].samples, seed)


def _at(figures: Figures, name: str, key: str, budget: Budget) -> Figure | None:
    return figures.get(_case(name, key, budget))


def _number(network: Network, figure: Figure | None) -> str:
    if figure is None:
        return NOT_MEASURED
    return NONE if figure.metric is None else f"{figure.metric:,.{network.digits}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    marks = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, marks, *rows)) + "\n"
