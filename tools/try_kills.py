"""Whether a command that is killed at any moment leaves every output old or new, and its next run leaves no rubbish.

    python tools/try_kills.py [--kills 72] [--commands prune apply factorise] [--weights inline beside] [--seed 0]

`prune`, `apply` and `factorise` run on a small model, with weights inline and beside it, where the outputs of an
earlier run stand. Each is killed (SIGKILL) as often: half of the times before a step that changes the file system (a
file made, renamed or removed, a folder locked), spread evenly over all of these steps; a quarter a little later than
such a step, in the midst of what follows; and a quarter at a moment of the whole run. Then OUT must run in ONNX Runtime
and give what the old or the new model gives, the plan, the report and the statistics must be the old or the new ones
byte for byte, and after one more run only outputs may be there. Prints a table; exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faults import COMMANDS, WEIGHTS, Trial, end

# Python's names for what the write phase does.
_STEPS = frozenset(("os.rename", "os.mkdir", "os.remove", "os.link", "os.rmdir", "fcntl.flock"))
_WRITING = os.O_WRONLY | os.O_RDWR
_LONGEST_LATER = 0.01  # seconds: what a step of the write phase takes


@dataclass(frozen=True)
class Moment:
    """When a process is killed: `later` seconds after it comes to a step; step 0 is its start."""

    step: int
    later: float = 0.0


@dataclass
class Tally:
    """What came of the kills of one command.

    Attributes:
        killed: how many came before the command was done.
        versions: how often OUT was old, new, or something else.
        left: how often a killed run left temporary files.
        faults: what must not be, in words.

    """

    killed: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    left: int = 0
    faults: list[str] = field(default_factory=list)


def at_steps(reached: Callable[[int], object]) -> None:
    """Call a function before every step of this process that changes the file system, with the number of the step."""
    steps = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if event in _STEPS or opened:
            steps += 1
            reached(steps)

    sys.addaudithook(hook)


def kill(trial: Trial, moment: Moment) -> bool:
    """Run a trial's command and kill it; return whether it was still running."""
    reader, writer = os.pipe()

    def before() -> None:
        os.close(reader)
        tell = lambda step: step == moment.step and _reached(writer, wait=not moment.later)  # noqa: E731
        if moment.step:
            at_steps(tell)
        else:
            tell(0)

    process = trial.start("new", before)
    os.close(writer)
    if os.read(reader, 1):
        time.sleep(moment.later)
        os.kill(process, signal.SIGKILL)
    os.close(reader)
    return end(process) == -signal.SIGKILL


def _reached(writer: int, *, wait: bool) -> None:
    os.write(writer, b"!")
    if wait:
        time.sleep(60)


def count_steps(trial: Trial) -> tuple[int, float]:
    """Return how many steps a whole run takes, and how many seconds."""
    reader, writer = os.pipe()
    started = time.monotonic()
    process = trial.start("new", lambda: at_steps(lambda _: os.write(writer, b"!")))
    os.close(writer)
    steps = 0
    while data := os.read(reader, 4096):
        steps += len(data)
    os.close(reader)
    if end(process):
        raise RuntimeError(f"{trial}: {trial.said()}")
    return steps, time.monotonic() - started


def moments(kills: int, steps: int, seconds: float, chance: random.Random) -> Iterator[Moment]:
    """Yield the moments of the kills."""
    for number in range(kills):
        step = 1 + number * steps // kills
        if number % 4 == 1:
            yield Moment(step, chance.uniform(0, _LONGEST_LATER))
        elif number % 4 == 3:
            yield Moment(0, chance.uniform(0, seconds))
        else:
            yield Moment(step)


def try_kills(trial: Trial, kills: int, seed: int = 0) -> Tally:
    """Kill a command as often as asked for, each time from the old outputs on."""
    trial.prepare()
    trial.restore("old")
    steps, seconds = count_steps(trial)
    tally = Tally()
    for moment in moments(kills, steps, seconds, random.Random(seed)):
        trial.restore("old")
        tally.killed += kill(trial, moment)
        tally.left += bool(trial.leftovers())
        _check(trial, f"{trial}: killed at step {moment.step} of {steps} + {1000 * moment.later:.1f} ms", tally)
    return tally


def _check(trial: Trial, killed: str, tally: Tally) -> None:
    versions = trial.versions()
    tally.versions[versions["out.onnx"]] += 1
    tally.faults += [f"{killed}: {name} is {v}" for name, v in versions.items() if v not in ("old", "new")]
    if code := end(trial.start("new")):
        tally.faults.append(f"{killed}: the next run ended with {code}: {trial.said()}")
    later = trial.versions()
    tally.faults += [f"{killed}: {name} is {v} after the next run" for name, v in later.items() if v != "new"]
    tally.faults += [f"{killed}: {name} is left after the next run" for name in trial.leftovers()]


def main(words: Sequence[str] | None = None) -> int:
    """Try all commands and print the table; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=72, help="of all commands together")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    kinds = list(itertools.product(arguments.commands, arguments.weights))
    each = max(1, arguments.kills // len(kinds))
    faults: list[str] = []
    print(f"{'command':28}{'runs':>6}{'killed':>8}{'OUT old':>9}{'OUT new':>9}{'left':>6}{'lost':>6}")
    for command, weights in kinds:
        with tempfile.TemporaryDirectory(prefix="try-kills-") as folder:
            trial = Trial(Path(folder) / "trial", command, weights == "beside")
            tally = try_kills(trial, each, arguments.seed)
        figures = (each, tally.killed, tally.versions["old"], tally.versions["new"], tally.left, len(tally.faults))
        print(f"{trial!s:28}" + "".join(f"{n:{w}}" for n, w in zip(figures, (6, 8, 9, 9, 6, 6), strict=True)))
        faults += tally.faults
    print(*faults, sep="\n", end="\n" if faults else "")
    print("left: runs that left temporary files when they were killed, for the next run to remove")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
