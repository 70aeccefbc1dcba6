"""Whether a command whose outputs cannot be written leaves every file as it was, and what two writers of one output do.

    python tools/try_disks.py [--commands prune apply factorise] [--weights inline beside] [--outputs ...] [--rounds 10]

`prune`, `apply` and `factorise` run on a small model, with weights inline and beside it, where the outputs of an
earlier run stand. For every output in turn:

- *full*: its disk has room for nothing, for half of it, for all but a page of it, and at last for all of it;
- *read-only*: its folder cannot be written;
- *taken*: its name becomes a mount when the first file takes its own, so that it can be written and not renamed;
- *limit*: files may not be larger than all but a byte of it;
- *long*: its name has more characters than names may have.

Each time the command must end with 1 and one line, and every output must be what it was, except that statistics which
`prune` and `factorise` calibrate are kept for the next try. With room for all, every output must be new. Then two
commands of different targets race for the same outputs while OUT is read: it must always be one of both, whole.

The first three need mounts, which are made where nobody else sees them (`unshare`); where that is not allowed they are
left out, and the table says so. Exits with 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults import COMMANDS, OUTPUTS, WEIGHTS, Trial, end

KINDS = ("full", "read-only", "taken", "limit", "long", "race")
_MOUNTED = KINDS[:3]
_DISK, _PAGE = 64 << 20, os.sysconf("SC_PAGE_SIZE")
_INSIDE = "TRY_DISKS_INSIDE"


@dataclass
class Tally:
    """What came of one kind of trouble.

    Attributes:
        tried: how many commands ran.
        refused: how many ended with 1 and one line.
        faults: what must not be, in words.

    """

    tried: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    def check(self, trial: Trial, code: int, trouble: str, *, works: bool = False) -> None:
        """Count a command that ended, from the old outputs on, with a code."""
        self.tried += 1
        self.refused += code == 1
        errors = [line for line in trial.said() if "error" in line]
        if code != (0 if works else 1) or len(errors) != code:
            self.faults.append(f"{trouble}: ended with {code}: {errors}")
        for name, version in trial.versions().items():
            early = name == "statistics.safetensors" and trial.command != "apply"
            if version != ("new" if works else "old") and not (early and version == "new"):
                self.faults.append(f"{trouble}: {name} is {version}")
        self.faults += [f"{trouble}: {name} is left" for name in trial.leftovers()]


def run(trial: Trial, before: Callable[[], object] = bool) -> int:
    """Run a trial's command for the new outputs; return its code."""
    return end(trial.start("new", before))


def mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)


def unmount(path: Path) -> None:
    subprocess.run(["umount", str(path)], check=True, capture_output=True)


@contextlib.contextmanager
def mounted(path: Path, *words: object) -> Iterator[None]:
    """Mount something at a path for the time of a block."""
    mount(*words, path)
    try:
        yield
    finally:
        unmount(path)


def at_first_rename(call: Callable[[], object]) -> None:
    """Call a function of this process before it renames a file for the first time."""
    due = [call]

    def hook(event: str, _: tuple[object, ...]) -> None:
        if event == "os.rename" and due:
            due.pop()()

    sys.addaudithook(hook)


def on_a_disk_of_its_own(trial: Trial, name: str, tallies: dict[str, Tally]) -> None:
    """Try an output on a disk that is full or read-only, and under a name that it cannot take."""
    disk = trial.folder / "disk"
    disk.mkdir(parents=True)
    with mounted(disk, "-t", "tmpfs", "-o", f"size={_DISK}", "tmpfs"):
        place = disk / "outputs" / name
        place.parent.mkdir()
        trial = replace(trial, places={name: place})
        trial.prepare()
        _full(trial, name, disk, tallies["full"])
        trial.restore("old")
        mount("-o", "remount,ro", disk)
        tallies["read-only"].check(trial, run(trial), f"{trial}: read-only disk under {name}")
        mount("-o", "remount,rw", disk)
        trial.restore("old")
        code = run(trial, lambda: at_first_rename(lambda: mount("--bind", place, place)))
        tallies["taken"].check(trial, code, f"{trial}: {name} cannot take its name")
        unmount(place)


def _full(trial: Trial, name: str, disk: Path, tally: Tally) -> None:
    pages = _pages(trial, name)
    for room in sorted({0, pages // 2, pages - 1, pages + 64}):
        trial.restore("old")
        with (disk / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, (os.statvfs(disk).f_bavail - room) * _PAGE)
        code = run(trial)
        (disk / "filler").unlink()
        tally.check(trial, code, f"{trial}: {room} pages left under {name} of {pages}", works=room > pages)


def _pages(trial: Trial, name: str) -> int:
    """Return the pages of disk that the new version of an output takes, of a model with its weights."""
    folder = trial.folder / "new"
    files = [path for path in folder.iterdir() if path.name not in trial.names] if name == "out.onnx" else []
    return sum(-(-path.stat().st_size // _PAGE) for path in (folder / name, *files))


def without_room_for_temporary_files(trial: Trial, tally: Tally) -> None:
    """Try with a full disk for temporary files; a command that gets by without them works."""
    trial.restore("old")
    with mounted(trial.folder / "temporary", "-t", "tmpfs", "-o", f"size={_PAGE}", "tmpfs"):
        code = run(trial)
        tally.check(trial, code, f"{trial}: a page for temporary files", works=code == 0)


def under_a_limit(trial: Trial, name: str, tally: Tally) -> None:
    """Try with a limit on the size of files that an output passes."""
    trial.restore("old")
    size = (trial.folder / "new" / name).stat().st_size - 1
    code = run(trial, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    tally.check(trial, code, f"{trial}: files below {size} bytes, for {name}")


def under_a_long_name(trial: Trial, name: str, tally: Tally) -> None:
    """Try an output with a name that no file can have."""
    trial.restore("old")
    place = trial.path(name).with_name("n" * (256 - len(Path(name).suffix)) + Path(name).suffix)
    code = run(replace(trial, places={name: place}))
    tally.check(trial, code, f"{trial}: a long name for {name}")


def race(trial: Trial, rounds: int, tally: Tally) -> None:
    """Let two commands write the same outputs while OUT is read."""
    for number in range(rounds):
        trial.restore("old")
        writers = [trial.start(version) for version in ("old", "new")]
        for writer in writers:
            while os.waitid(os.P_PID, writer, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                if not trial.whole():
                    tally.faults.append(f"{trial}: race {number}: OUT was the model of none")
                time.sleep(0.001)
            if code := end(writer):
                tally.faults.append(f"{trial}: race {number}: a writer ended with {code}: {trial.said()}")
        tally.tried += 2
        wrong = {name: version for name, version in trial.versions().items() if version not in ("old", "new")}
        tally.faults += [f"{trial}: race {number}: {name} is {version}" for name, version in wrong.items()]
        tally.faults += [f"{trial}: race {number}: {name} is left" for name in trial.leftovers()]


def try_disks(trial: Trial, outputs: Sequence[str], rounds: int, tallies: dict[str, Tally], *, mounts: bool) -> None:
    """Try everything with a trial that is not prepared yet; count what came of it by kind."""
    trial.prepare()
    for name in (name for name in trial.names if name in outputs):
        under_a_limit(trial, name, tallies["limit"])
        under_a_long_name(trial, name, tallies["long"])
        if mounts:
            on_a_disk_of_its_own(replace(trial, folder=trial.folder / name), name, tallies)
    race(trial, rounds, tallies["race"])
    if mounts and trial.beside:
        without_room_for_temporary_files(trial, tallies["full"])


def enter() -> bool:
    """Go on in a process whose mounts nobody else sees; False where that is not allowed."""
    if _INSIDE in os.environ:
        return True
    apart = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    try:
        probe = [*apart, "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return bool(os.execvpe(apart[0], [*apart, sys.executable, *sys.argv], os.environ | {_INSIDE: "1"}))


def main(words: Sequence[str] | None = None) -> int:
    """Try all commands and print the table; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS)
    parser.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=OUTPUTS)
    parser.add_argument("--rounds", type=int, default=10, help="races of two commands, for each command and model")
    arguments = parser.parse_args(words)
    mounts = enter()
    tallies = {kind: Tally() for kind in KINDS}
    for command, weights in itertools.product(arguments.commands, arguments.weights):
        with tempfile.TemporaryDirectory(prefix="try-disks-") as folder:
            trial = Trial(Path(folder) / "trial", command, weights == "beside")
            try_disks(trial, arguments.outputs, arguments.rounds, tallies, mounts=mounts)
    print(f"{'trouble':12}{'commands':>10}{'refused':>9}{'lost':>6}")
    for kind, tally in tallies.items():
        if mounts or kind not in _MOUNTED:
            print(f"{kind:12}{tally.tried:10}{tally.refused:9}{len(tally.faults):6}")
        else:
            print(f"{kind:12}  not tried: no mounts are allowed here")
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    print(*faults, sep="\n", end="\n" if faults else "")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
