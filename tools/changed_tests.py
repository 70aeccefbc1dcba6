"""Run the tests of what has changed since the branch left main: of a module its own, else those of its package.

    python tools/changed_tests.py [--list] [BASE]

BASE is a commit; without one it is where the branch left `main`, which is the last commit on main itself. What is not
committed counts as changed. With `--list` the tests are named and not run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
# Files that are no modules, and what holds them.
OTHERS = {
    "pyproject.toml": ["tests/test_imports.py", "tests/test_packaging.py"],
    "README.md": ["tests/cli/test_readme.py"],
}
_NOTHING_COLLECTED = 5


def tests_of(root: Path, changed: str) -> list[str]:
    """Return the tests of one file, by its path from the root; nothing where there are none or the file is gone."""
    path = PurePosixPath(changed)
    if changed in OTHERS:
        return [name for name in OTHERS[changed] if (root / name).exists()]
    if path.suffix != ".py":
        return []
    if path.parts[0] == "tests":
        return _changed_tests(root, path)
    return _mirrored(root, path)


def _changed_tests(root: Path, path: PurePosixPath) -> list[str]:
    if path.name.startswith("test_"):
        return [str(path)] if (root / path).exists() else []
    # What tests share stands beside them or in a folder of its own; of a whole suite there is `make test`.
    return [] if path.parent == PurePosixPath("tests") else [str(path.parent)]


def _mirrored(root: Path, path: PurePosixPath) -> list[str]:
    inner = path.parts[1:] if path.parts[0] == "onnx_subprune" else path.parts
    folder, name = PurePosixPath("tests", *inner[:-1]), path.stem
    own = [found for pattern in (f"test_{name}.py", f"test_{name}_*.py") for found in (root / folder).glob(pattern)]
    if not own and len(inner) > 2:
        own = list((root / folder.parent).glob(f"test_{folder.name}_{name}.py"))
    if own:
        return sorted(str(found.relative_to(root)) for found in own)
    while len(folder.parts) > 1 and not (root / folder).is_dir():
        folder = folder.parent
    return [str(folder)] if len(folder.parts) > 1 else []


def selected(root: Path, changed: Iterable[str]) -> list[str]:
    """Return the tests of all these files, without those that a chosen folder holds anyway."""
    chosen = {test for name in changed for test in tests_of(root, name)}
    return sorted(test for test in chosen if not chosen & {str(parent) for parent in PurePosixPath(test).parents})


def changed_files(root: Path, base: str | None) -> list[str]:
    """Return the files that differ from a commit, and those that git does not know yet."""
    if base is None:
        base = _git(root, "merge-base", "HEAD", "main") or "HEAD"
    changed = _git(root, "diff", "--name-only", base).splitlines()
    return sorted({*changed, *_git(root, "ls-files", "--others", "--exclude-standard").splitlines()})


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=root, check=False, capture_output=True, text=True)
    return result.stdout.strip()


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--list"]
    tests = selected(ROOT, changed_files(ROOT, arguments[0] if arguments else None))
    print("\n".join(tests) or "no tests for what has changed", flush=True)
    if not tests or "--list" in sys.argv:
        return 0
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-m", "not slow", *tests]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    return 0 if status == _NOTHING_COLLECTED else status


if __name__ == "__main__":
    sys.exit(main())
