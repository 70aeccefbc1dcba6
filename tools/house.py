"""The shape of a checkout in figures: packages, files, circles, functions, words, tests.

    python tools/house.py [ROOT] [REPORT]

ROOT is a checkout with `onnx_subprune/`, `passes/` and `tests/` (the one this file is in); REPORT is a folder that
`mypy --any-exprs-report` has written for it.
"""

from __future__ import annotations

import ast
import os
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import typed

PACKAGE = "onnx_subprune"
LONG_FILE, LONG_FUNCTION = 400, 35
# Local names that say nothing of what they hold.
EMPTY_WORDS = ("found", "one", "left", "made", "each", "ours", "theirs", "told", "shown")

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Edges = Mapping[str, set[str]]


@dataclass(frozen=True)
class Module:
    """A source file, by the name under which it is imported."""

    name: str
    path: Path
    is_package: bool

    @cached_property
    def text(self) -> str:
        """The source."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """The source, parsed."""
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> int:
        """How many lines there are."""
        return len(self.text.splitlines())


def read(root: Path) -> list[Module]:
    """Return all modules of the package, those behind the symlink `passes` too."""
    modules = []
    # Only one level of links: the entry `passes` of the package is one.
    for folder, folders, files in os.walk(root / PACKAGE, followlinks=True):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for file in sorted(name for name in files if name.endswith(".py")):
            path = Path(folder, file)
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            modules.append(Module(".".join(parts[:-1] if is_package else parts), path, is_package))
    return modules


def imports(module: Module, known: set[str]) -> set[str]:
    """Return the modules of the package that a module names anywhere: indented imports and those for types too."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            names |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names}
    return {name for name in names if name in known} - {module.name}


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def circles(edges: _Edges) -> list[list[str]]:
    """Return the groups of modules that all reach each other (Tarjan), largest first."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(edges.get(name, ())):
            if target not in index:
                visit(target)
            if target in stack:
                low[name] = min(low[name], low[target])
        if low[name] == index[name]:
            component = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            components.append(sorted(component))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return sorted((part for part in components if len(part) > 1), key=len, reverse=True)


def functions(modules: Iterable[Module]) -> Iterator[tuple[str, int, int]]:
    """Yield each function with its number of lines, and with that of its lines without the docstring."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, _Function):
                lines = _length(node)
                has_docstring = ast.get_docstring(node, clean=False) is not None
                yield f"{module.name}.{node.name}", lines, lines - (_length(node.body[0]) if has_docstring else 0)


def _length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def package_names(modules: Iterable[Module]) -> set[str]:
    """Return the names that packages hand on, for others to use."""
    return {name for module in modules if module.is_package for name in _offered(module.tree)}


def public_functions(modules: Iterable[Module]) -> Iterator[tuple[str, bool]]:
    """Yield each function with arguments that a module or one of its classes offers, and whether `Args:` says which."""
    for module in modules:
        offered = _offered(module.tree)
        for node in module.tree.body:
            if isinstance(node, _Function | ast.ClassDef) and node.name in offered:
                prefix = f"{module.name}.{node.name}." if isinstance(node, ast.ClassDef) else f"{module.name}."
                for function in _own_functions(node):
                    if _has_arguments(function):
                        yield f"{prefix}{function.name}", "Args:" in (ast.get_docstring(function) or "")


def _own_functions(node: _Function | ast.ClassDef) -> list[_Function]:
    if not isinstance(node, ast.ClassDef):
        return [node]
    return [item for item in node.body if isinstance(item, _Function) and not item.name.startswith("_")]


def _has_arguments(function: _Function) -> bool:
    arguments = function.args
    named = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return bool(set(named) - {"self", "cls"} or arguments.vararg or arguments.kwarg)


def _offered(tree: ast.Module) -> set[str]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            assert isinstance(node, ast.Assign)
            return set(ast.literal_eval(node.value))
    return set()


def local_names(modules: Iterable[Module]) -> Counter[str]:
    """Count how often a name is bound: by an assignment, a loop, a comprehension, a parameter."""
    names: Counter[str] = Counter()
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names[node.id] += 1
            elif isinstance(node, ast.arg):
                names[node.arg] += 1
    return names


def uses_of_names(modules: Iterable[Module]) -> Counter[str]:
    """Count how often a name stands in the code, bound or read."""
    return Counter(
        node.arg if isinstance(node, ast.arg) else node.id
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Name | ast.arg)
    )


def twins(modules: Iterable[Module]) -> list[tuple[str, ...]]:
    """Return the modules that share a file name."""
    named: defaultdict[str, list[str]] = defaultdict(list)
    for module in modules:
        if not module.is_package:
            named[module.path.name].append(module.name.removeprefix(f"{PACKAGE}."))
    return [tuple(sorted(names)) for _, names in sorted(named.items()) if len(names) > 1]


def untested(root: Path, modules: Iterable[Module]) -> list[str]:
    """Return the modules that have no test file of their own in the mirrored folder."""
    lacking = []
    for module in modules:
        parts = module.name.split(".")[1:]
        if parts and not module.is_package and not _tests_of(root, parts):
            lacking.append(".".join(parts))
    return lacking


def _tests_of(root: Path, parts: list[str]) -> list[Path]:
    folder, name = root.joinpath("tests", *parts[:-1]), parts[-1]
    own = [path for pattern in (f"test_{name}.py", f"test_{name}_*.py") for path in folder.glob(pattern)]
    # The tests of an inner package may lie in the folder of the outer one.
    return own or list(folder.parent.glob(f"test_{folder.name}_{name}.py"))


def test_lines(root: Path) -> int:
    """Count the lines of the tests and of what they share."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (root / "tests").rglob("*.py"))


def describe(root: Path) -> Iterator[str]:
    """Yield the figures of a checkout, a line each."""
    modules = read(root)
    known = {module.name for module in modules}
    edges = {module.name: imports(module, known) for module in modules}
    yield from _places(modules)
    yield from _circles(circles(edges))
    yield from _functions(modules)
    yield from _words(modules)
    yield from _tests(root, modules)


def _places(modules: list[Module]) -> Iterator[str]:
    top = [m for m in modules if m.name.count(".") == 1 and not m.is_package]
    packages = [m for m in modules if m.name.count(".") == 1 and m.is_package]
    yield f"modules at the top         {len(top)}"
    yield f"packages                   {len(packages)}: {', '.join(m.name.partition('.')[2] for m in packages)}"
    yield f"files                      {len(modules)}, {sum(m.lines for m in modules)} lines"
    longest = max(modules, key=lambda m: m.lines)
    yield f"longest file               {longest.lines}: {longest.name}"
    yield _listed(f"files over {LONG_FILE} lines", [m.name for m in modules if m.lines > LONG_FILE])
    yield _listed("files of one name", [" = ".join(names) for names in twins(modules)])


def _circles(components: list[list[str]]) -> Iterator[str]:
    yield _listed("circles of imports", [f"{len(names)} modules ({', '.join(names)})" for names in components])


def _functions(modules: list[Module]) -> Iterator[str]:
    lengths = sorted(functions(modules), key=lambda item: -item[2])
    whole, code = ([item[place] for item in lengths] for place in (1, 2))
    yield f"functions                  {len(lengths)}, median / 90% {_spread(whole)} lines, {_spread(code)} of code"
    yield f"functions over {LONG_FUNCTION} lines    {sum(size > LONG_FUNCTION for size in whole)} with their docstrings"
    yield _listed(f"over {LONG_FUNCTION} lines of code", [f"{n} {c}" for n, _, c in lengths if c > LONG_FUNCTION])
    public = list(public_functions(modules))
    offered = package_names(modules)
    yield f"public, with Args:         {_share(has for _, has in public)}"
    yield f"of them from a package     {_share(has for name, has in public if _owner(name) in offered)}"


def _owner(name: str) -> str:
    """Return the class of a method, or the function itself."""
    *_, outer, function = name.split(".")
    return outer if outer[0].isupper() else function


def _share(documented: Iterable[bool]) -> str:
    has = list(documented)
    return f"{sum(has)} of {len(has)} with arguments ({sum(has) / max(len(has), 1):.0%})"


def _spread(sizes: list[int]) -> str:
    return f"{statistics.median(sizes):.0f} / {statistics.quantiles(sizes, n=10)[-1]:.0f}"


def _words(modules: list[Module]) -> Iterator[str]:
    bound, uses = local_names(modules), uses_of_names(modules)
    yield f"bound names that say nothing  {', '.join(f'{word} {bound[word]} ({uses[word]})' for word in EMPTY_WORDS)}"


def _tests(root: Path, modules: list[Module]) -> Iterator[str]:
    lines, source = test_lines(root), sum(module.lines for module in modules)
    yield f"tests : source             {lines} : {source} = {lines / source:.2f}"
    yield _listed("without a test file", untested(root, modules))


def _listed(title: str, names: list[str]) -> str:
    return f"{title:26} {len(names)}" + "".join(f"\n    {name}" for name in names)


def main() -> None:
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    for line in describe(root):
        print(line)
    if len(sys.argv) > 2:
        print(typed.table(typed.read(Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
