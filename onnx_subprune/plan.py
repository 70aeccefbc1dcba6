"""A plan: the units that stay in every group, for which model, and how they were chosen. Saved as JSON one can read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnx_subprune.errors import OutputError, PlanError
from onnx_subprune.formatting import change, html_table
from onnx_subprune.model import atomic_write, check_regular
from onnx_subprune.options import RecoveryOptions
from onnx_subprune.structure import Atom, Structure

__all__ = ["Plan", "PlannedGroup"]

_FORMAT = "onnx_subprune.plan/1"
_FIRST_DEFAULTS = {"prune_normalised": False, "one_pass": True, "rows": 32, "probes": 16, "sweeps": 1}
"""Recovery of the plans that were written before these options entered them."""
_OPTIONAL = ("outputs_at",)
"""Options that a plan holds only where they say something."""


@dataclass(frozen=True)
class PlannedGroup:
    """A group by name, its size, and the units that stay (ascending; none where the group goes as a whole)."""

    name: str
    size: int
    kept: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Plan:
    """The units that go from the model with this fingerprint.

    Attributes:
        fingerprint: of the dense model.
        target: as given, such as `macs=0.5`.
        groups: every prunable group, in graph order.
        options: how the units were ranked and how their consumers make up for them.

    """

    fingerprint: str
    target: str
    groups: tuple[PlannedGroup, ...]
    options: RecoveryOptions = field(default_factory=RecoveryOptions)

    def __repr__(self) -> str:
        before, after = sum(group.size for group in self.groups), sum(self.widths.values())
        return (
            f"<Plan {self.target} for {self.fingerprint[:12]}: {after:,} of {before:,} units in {len(self.groups)} "
            f"groups, chosen by {self.options.select}, recovery {self.options.recovery}>"
        )

    def _repr_html_(self) -> str:
        rows = [(g.name, str(g.size), str(len(g.kept)), change(g.size, len(g.kept))) for g in self.groups]
        return html_table(("group", "units", "kept", "share"), rows, self.target)

    @property
    def widths(self) -> dict[str, int]:
        """How many units each group keeps, by its name.

        >>> Plan("0123", "macs=0.5", (PlannedGroup("conv1", 4, (0, 3)), PlannedGroup("conv2", 2, (0, 1)))).widths
        {'conv1': 2, 'conv2': 2}

        """
        return {group.name: len(group.kept) for group in self.groups}

    @property
    def removes(self) -> bool:
        """Whether any unit goes."""
        return any(len(group.kept) < group.size for group in self.groups)

    def only(self, *names: str) -> Plan:
        """Return the plan that removes what this one removes from some groups, and nothing else.

        Args:
            names: of the groups.

        """
        groups = (g if g.name in names else PlannedGroup(g.name, g.size, tuple(range(g.size))) for g in self.groups)
        return replace(self, groups=tuple(groups))

    def keeps(self, structure: Structure) -> dict[Atom, np.ndarray]:
        """Return the keep masks [units], for the groups that lose units.

        Args:
            structure: of the model that the plan is carried out on.

        Raises:
            PlanError: a group is missing in the model, has another size, or cannot lose all its units.

        """
        atoms = {group.name: group.atom for group in structure.prunable}
        keeps: dict[Atom, np.ndarray] = {}
        for group in self.groups:
            atom = atoms.get(group.name)
            if atom is None or atom.size != group.size:
                frozen = (other.reasons[0] for other in structure.frozen if other.name == group.name)
                absent = next((f"it frozen ({reason})" for reason in frozen), "no such prunable group")
                present = absent if atom is None else f"{atom.size} units"
                raise PlanError(
                    f"expected group '{group.name}' with {group.size} units as in the plan, found {present}; "
                    "make a plan for this model"
                )
            if len(group.kept) < group.size:
                keeps[atom] = np.isin(np.arange(group.size), group.kept)
        reason = structure.removal(group.name for group in self.groups if not group.kept).reason
        if reason is not None:
            raise PlanError(f"expected a plan that leaves a unit where one is needed, but {reason}; keep a unit")
        return keeps

    def to_json(self) -> str:
        """Return the plan as JSON text, a line per group, with a checksum of all the rest."""
        head: dict[str, Any] = {"format": _FORMAT, "fingerprint": self.fingerprint, "target": self.target}
        head |= {name: value for name, value in asdict(self.options).items() if name not in _OPTIONAL or value}
        groups = [{"name": g.name, "size": g.size, "kept": list(g.kept)} for g in self.groups]
        head["checksum"] = _checksum({**head, "groups": groups})
        body = ",\n    ".join(map(json.dumps, groups))
        return json.dumps(head, indent=2)[:-2] + f',\n  "groups": [\n    {body}\n  ]\n}}\n'

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, whole or not at all.

        Args:
            path: of the file.

        Raises:
            OutputError: the file cannot be written there.

        """
        target = Path(path)
        try:
            with atomic_write(target) as temporary:
                temporary.write_text(self.to_json(), encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"cannot write the plan '{target}': {error.strerror}; give a path in a folder you can write to"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Read what `save` wrote.

        Args:
            path: of the file.

        Raises:
            PlanError: the file is missing, not a plan, or not what was saved.

        """
        try:
            check_regular(path)
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"expected a plan at '{path}', found: {error.strerror}; give a file from --plan") from error
        except (ValueError, RecursionError) as error:
            raise PlanError(
                f"expected a plan in JSON at '{path}', found other content; give a file from --plan"
            ) from error
        return cls._from_data(data, str(path))

    @classmethod
    def _from_data(cls, data: Any, path: str) -> Plan:
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            raise PlanError(f"expected a plan of format {_FORMAT} at '{path}', found another; give a file from --plan")
        # Plans of before lack it; whoever edits a plan takes it out.
        if "checksum" in data and data["checksum"] != _checksum(data):
            raise PlanError(
                f"expected the plan at '{path}' as it was saved, found it damaged or edited; make it anew, or delete "
                "its line 'checksum' if the edit is meant"
            )
        try:
            groups = tuple(_group(entry) for entry in data["groups"])
            return cls(str(data["fingerprint"]), str(data["target"]), groups, _options(data))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise PlanError(
                f"expected a whole plan at '{path}', found a damaged entry ({error}); make it anew"
            ) from error


def _checksum(data: Mapping[str, Any]) -> str:
    """SHA-256 of the content of a plan, whatever its spacing and the order of its keys."""
    content = {key: value for key, value in data.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _group(entry: Mapping[str, Any]) -> PlannedGroup:
    size, kept = int(entry["size"]), sorted({int(unit) for unit in entry["kept"]})
    if kept and (kept[0] < 0 or kept[-1] >= size):
        raise ValueError(f"units kept of '{entry['name']}' are not within 0..{size - 1}")
    return PlannedGroup(str(entry["name"]), size, tuple(kept))


def _options(data: Mapping[str, Any]) -> RecoveryOptions:
    entries = {**_FIRST_DEFAULTS, **data}
    return RecoveryOptions(
        select=str(entries["select"]),
        recovery=str(entries["recovery"]),
        ridge=float(entries["ridge"]),
        prune_normalised=bool(entries["prune_normalised"]),
        one_pass=bool(entries["one_pass"]),
        rows=int(entries["rows"]),
        probes=int(entries["probes"]),
        sweeps=int(entries["sweeps"]),
        outputs_at=_names(entries.get("outputs_at", [])),
    )


def _names(entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, list):
        raise TypeError(f"'outputs_at' is {entry!r} and no list")
    return tuple(map(str, entry))
