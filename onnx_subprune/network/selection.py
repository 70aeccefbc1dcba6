"""Which groups or layers the user's globs choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onnx_subprune.errors import OptionError
from onnx_subprune.options import Options
from onnx_subprune.structure import Group, Structure

__all__ = ["check_patterns", "chosen_groups", "is_chosen"]

_EXAMPLES = 3

Matches = Callable[[str], bool]
"""Whether a glob matches."""


def chosen_groups(structure: Structure, options: Options) -> list[Group]:
    """Return the groups to prune.

    Args:
        structure: of the dense network.
        options: `ignore` and `only`, globs over names of groups, nodes and weights and paths of modules.

    Raises:
        OptionError: a glob matches no group.

    """
    names = [group.name for group in structure.prunable]
    modules = [group.module for group in structure.prunable if group.module is not None]
    check_patterns(options, _any_matches(structure.groups), "a group, node or weight", names, modules)
    return [group for group in structure.prunable if is_chosen(options, group.matches)]


def _any_matches(groups: Sequence[Group]) -> Matches:
    return lambda pattern: any(group.matches(pattern) for group in groups)


def check_patterns(
    options: Options, matches: Matches, kind: str, names: Sequence[str], modules: Sequence[str] = ()
) -> None:
    """Refuse a glob that matches nothing: it is the user's mistake.

    Args:
        options: `ignore` and `only`.
        matches: whether a glob matches anything.
        kind: of things that globs match, in words.
        names: of some, as examples.
        modules: of the exported program, where the model says which; as examples.

    Raises:
        OptionError: a glob matches nothing.

    """
    for pattern in (*options.ignore, *options.only):
        if not matches(pattern):
            examples = ", ".join(names[:_EXAMPLES]) or "none"
            if modules:
                kind = f"{kind}, or a module"
                examples += f"; modules like {', '.join(list(dict.fromkeys(modules))[:_EXAMPLES])}"
            raise OptionError(f"expected '{pattern}' to match {kind}, found none that does; names look like {examples}")


def is_chosen(options: Options, matches: Matches) -> bool:
    """Whether a thing is not ignored, and asked for where any are.

    Args:
        options: `ignore` and `only`.
        matches: whether a glob matches the thing.

    >>> from fnmatch import fnmatchcase
    >>> options = Options(only=("conv*",), ignore=("conv2",))
    >>> [is_chosen(options, lambda glob, name=name: fnmatchcase(name, glob)) for name in ("conv1", "conv2", "fc")]
    [True, False, False]

    """
    if any(matches(pattern) for pattern in options.ignore):
        return False
    return not options.only or any(matches(pattern) for pattern in options.only)
