"""Structured pruning side by side with `onnxsim.pruning` on every network of the zoo: docs/rival.md.

    python tools/bench_rival.py --rival-python RIVAL_VENV/bin/python --out docs/rival.md

The rival (`pip install onnxsim==0.8.1`) runs in a process of its own, by a Python that is given, so that this project
never depends on it. Both sides get the same model and the same inputs to calibrate with, and both results are judged
here in the same way, from the file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
import onnx
from zoo import Entry, read_entries, read_skeleton, refill

from onnx_subprune.errors import UserError
from onnx_subprune.model import load_model, measure_cost, open_session, run
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import prune

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "tests" / "zoo"
SAMPLES, STRIDE = 4, 7
KINDS = ("valid and smaller", "smaller, full check fails", "unchanged", "not valid", "failed")
_BAD_SHAPES = onnx.shape_inference.InferenceError
# What the rival offers for float networks. Head pruning works on fused attention, and leaves all else alone.
MODES = ("weights", "activations", "global")
# The rival's process: a line of JSON in, a line out.
CHILD = """
import json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import numpy as np, onnx, onnxsim.pruning as p
def weights(m, d):
    return p.apply_attention_head_pruning(p.apply_structured_pruning(m, sparsity=0.25), sparsity=0.25)
def activations(m, d):
    m = p.apply_structured_wanda_pruning(m, d, sparsity=0.25)
    return p.apply_attention_head_wanda_pruning(m, d, sparsity=0.25)
def everywhere(m, d):
    return p.apply_structured_pruning(m, sparsity=0.25, global_sparsity=True)
modes = {"weights": weights, "activations": activations, "global": everywhere}
for line in sys.stdin:
    mode, source, out, feeds = json.loads(line)
    try:
        onnx.save(modes[mode](onnx.load(source), [dict(np.load(path)) for path in feeds]), out)
        answer = ""
    except Exception as error:
        answer = f"{type(error).__name__}: {error}"
    print(json.dumps(answer), file=answers, flush=True)
"""
TEXT = """\
# Side by side with onnxsim.pruning

`onnxsim` 0.8.1 is the other program that removes channels from ONNX files without training. Both get {entries} of
the {all} graphs of the zoo with the same random weights and the same {samples} inputs. onnx-subprune removes a quarter
of the units of every group (`--target units=0.75`, defaults otherwise, recovery included). The rival gets
`sparsity=0.25` in three modes, with its defaults otherwise, and the best valid result counts for it:
`apply_structured_pruning` and `apply_structured_wanda_pruning`, each followed by its head pruning, and the first with
`global_sparsity=True`. That mode shares the quarter out over all layers, so it may remove more than a quarter of the
parameters.

A result is *not valid* where ONNX's checker refuses it, ONNX Runtime does not run it at two sets of input sizes, or an
output has another shape than the dense network's. *Full check fails* where it runs, but ONNX's shape inference
contradicts the shapes that the file records; it still counts as smaller. *Unchanged* is what runs and lost no
parameter, *failed* what took too long or ended in an error. Shares are of the dense parameters, read off the files.
Random weights say nothing of accuracy, and nothing is said of it here.

| | onnx-subprune | onnxsim.pruning |
|---|--:|--:|
{summary}

{behind}

{without}

## By architecture

For each the number of graphs that run and are smaller, and the median share removed over all its graphs (0 where a
graph was unchanged or the result not valid).

| architecture | graphs | onnx-subprune | removed | onnxsim.pruning | removed | what the rival says or breaks |
|---|--:|--:|--:|--:|--:|---|
{rows}

`python tools/bench_rival.py --rival-python PYTHON --out docs/rival.md` writes this page.
"""


@dataclass(frozen=True)
class Outcome:
    """What one side made of one graph: `share` of the parameters removed, or `fault`, the reason why nothing counts.

    `refused` is what ONNX's full check says of a model that runs nevertheless.
    """

    share: float = 0.0
    fault: str | None = None
    refused: str | None = None

    @property
    def kind(self) -> str:
        """Valid and smaller, unchanged, or not valid."""
        if self.fault is not None:
            return self.fault.split(":")[0]
        if not self.share:
            return "unchanged"
        return "valid and smaller" if self.refused is None else "smaller, full check fails"


@dataclass(frozen=True)
class Pair:
    """Both sides on one graph."""

    entry: Entry
    ours: Outcome
    rival: Outcome


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block after that time."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judge(path: Path, dense: onnx.ModelProto, entry: Entry) -> Outcome:
    """Look at a file that a pruner wrote."""
    try:
        small = load_model(path)
        onnx.checker.check_model(small)
        sessions = [open_session(model, threads=1) for model in (dense, small)]
        for which in (0, 1):
            expected, found = (run(session, entry.feeds(which, seed=1)) for session in sessions)
            wrong = [name for name, value in expected.items() if found[name].shape != value.shape]
            if wrong:
                return Outcome(fault=f"not valid: output '{wrong[0]}' has another shape")
        before, after = (measure_cost(model, entry.shapes(0)).parameters for model in (dense, small))
    except (UserError, ValueError, RuntimeError, onnx.checker.ValidationError, _BAD_SHAPES) as error:
        return Outcome(fault=f"not valid: {_line(error)}")
    return Outcome(share=1 - after / before, refused=_refused(small))


def _refused(model: onnx.ModelProto) -> str | None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, _BAD_SHAPES) as error:
        return f"full check: {_line(error)}"
    return None


def ours(model: onnx.ModelProto, entry: Entry, folder: Path, seconds: int) -> Outcome:
    """Prune with this program."""
    data = [entry.feeds(0, seed=i) for i in range(SAMPLES)]
    try:
        with limit(seconds):
            result = prune(model, data, Options(target=Target("units", 0.75), threads=1))
            result.save(folder / "ours.onnx")
    except Exception as error:
        return Outcome(fault=f"failed: {_line(error)}")
    return judge(folder / "ours.onnx", model, entry)


class Rival:
    """The rival's process; it is started again after a crash or a time-out.

    Args:
        python: of an environment that has onnxsim.
        seconds: limit for one mode on one graph.

    """

    def __init__(self, python: str, seconds: int) -> None:
        self._python = python
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def prune(self, model: onnx.ModelProto, entry: Entry, folder: Path) -> Outcome:
        """Prune in all modes; the best one counts."""
        onnx.save(model, folder / "dense.onnx")
        files = [folder / f"feeds{i}.npz" for i in range(SAMPLES)]
        for i, path in enumerate(files):
            np.savez(path, **entry.feeds(0, seed=i))
        found = []
        for mode in MODES:
            out = folder / f"{mode}.onnx"
            fault = self._ask([mode, str(folder / "dense.onnx"), str(out), [str(path) for path in files]])
            found.append(Outcome(fault=f"failed: {_line(fault)}") if fault else judge(out, model, entry))
        return max(found, key=lambda one: (one.fault is None, one.share))

    def _ask(self, words: list[object]) -> str:
        """Return what went wrong, or an empty line."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [self._python, "-c", CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
                text=True,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], self._seconds)
        answer = self._process.stdout.readline() if ready else ""
        if answer:
            return str(json.loads(answer))
        self.close()
        return "the process died" if ready else f"not done after {self._seconds} s"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _line(error: object) -> str:
    words = str(error).strip().splitlines() or [type(error).__name__]
    return words[0].removeprefix("[ShapeInferenceError] ").replace("|", "/")[:100]


def summary(pairs: Sequence[Pair]) -> str:
    """Counts of both sides, and the medians."""
    sides = [[pair.ours for pair in pairs], [pair.rival for pair in pairs]]
    counts = [Counter(one.kind for one in side) for side in sides]
    lines = [f"| {kind} | {counts[0][kind]} | {counts[1][kind]} |" for kind in KINDS]
    medians = [f"{statistics.median(one.share for one in side):.1%}" for side in sides]
    of_smaller = [[one.share for one in side if one.share > 0] or [0.0] for side in sides]
    lines.append(f"| median share removed, over all | {medians[0]} | {medians[1]} |")
    lines.append(
        "| median share removed, where any | " + " | ".join(f"{statistics.median(s):.1%}" for s in of_smaller) + " |"
    )
    more = [
        sum(p.ours.share > p.rival.share + 1e-3 for p in pairs),
        sum(p.rival.share > p.ours.share + 1e-3 for p in pairs),
    ]
    return "\n".join([*lines, f"| removes more than the other | {more[0]} | {more[1]} |"])


def behind(pairs: Sequence[Pair]) -> str:
    """The graphs on which the rival removes more."""
    ahead = [pair for pair in pairs if pair.rival.share > pair.ours.share + 1e-3]
    if not ahead:
        return "The rival removes more on none of them."
    listed = ", ".join(f"{p.entry.name} ({p.rival.share:.1%} to {p.ours.share:.1%})" for p in ahead)
    return (
        f"The rival removes more (its share, then ours) on {len(ahead)} of them: {listed}.\n"
        "A quarter out of every layer is at most 1 - 0.75^2 = 43.8% of the parameters; more comes from its global mode."
    )


def without(pairs: Sequence[Pair]) -> str:
    """The graphs on which our side has no result that counts."""
    listed = "; ".join(f"{p.entry.name}: {p.ours.fault}" for p in pairs if p.ours.fault is not None)
    return f"Nothing of onnx-subprune counts on: {listed or 'none'}."


def rows(pairs: Sequence[Pair]) -> str:
    """A row of the table for each architecture."""
    by_name: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_name.setdefault(pair.entry.architecture, []).append(pair)
    return "\n".join(_row(name, group) for name, group in sorted(by_name.items()))


def _row(name: str, group: Sequence[Pair]) -> str:
    cells = [name, str(len(group))]
    for side in ([pair.ours for pair in group], [pair.rival for pair in group]):
        cells.append(str(sum(one.share > 0 for one in side)))
        cells.append(f"{statistics.median(one.share for one in side):.1%}")
    faults = Counter(fault for pair in group if (fault := pair.rival.fault or pair.rival.refused))
    cells.append("; ".join(fault for fault, _ in faults.most_common(1)))
    return "| " + " | ".join(cells) + " |"


def compare(entry: Entry, rival: Rival, seconds: int) -> Pair:
    """Run both sides on one graph of the zoo."""
    model = refill(read_skeleton(ZOO / "skeletons" / f"{entry.name}.onnx.xz"))
    with tempfile.TemporaryDirectory() as folder:
        return Pair(entry, ours(model, entry, Path(folder), seconds), rival.prune(model, entry, Path(folder)))


def main() -> None:
    """Compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rival-python", required=True, help="a Python that has onnxsim 0.8.1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=300, help="limit for each side and mode on a graph")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    entries, pairs = read_entries(ZOO / "zoo.json"), list[Pair]()
    rival = Rival(arguments.rival_python, arguments.seconds)
    # Every seventh first: a run that is cut short leaves a page on a fair share of the zoo.
    for entry in (entry for start in range(STRIDE) for entry in entries[start::STRIDE]):
        pairs.append(compare(entry, rival, arguments.seconds))
        sys.stdout.write(f"{entry.name}: {pairs[-1].ours} {pairs[-1].rival}\n")
        sys.stdout.flush()
        parts = {"summary": summary(pairs), "behind": behind(pairs), "without": without(pairs), "rows": rows(pairs)}
        page = TEXT.format(entries=len(pairs), all=len(entries), samples=SAMPLES, **parts)
        arguments.out.write_text(page, encoding="utf-8")
    rival.close()


if __name__ == "__main__":
    main()
