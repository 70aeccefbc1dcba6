"""Write into the model how it was pruned: metadata under `pkg.onnx_subprune.`.

The stamp holds no time and no machine, so the same job writes the same bytes. Metadata of others stays in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import metadata

import onnx

from onnx_subprune.errors import ModelError

__all__ = ["Stamp", "read_stamp", "write_stamp"]

_PREFIX = "pkg.onnx_subprune."


@dataclass(frozen=True)
class Stamp:
    """What the metadata says: how the model was pruned, from what, and what that saved.

    `target` is the target or command as given; MACs are of one inference at the input shapes of the run, parameters
    are elements; `dense_fingerprint` identifies the model that was pruned (`onnx_subprune.model.fingerprint`).
    """

    target: str
    dense_macs: int
    pruned_macs: int
    dense_parameters: int
    pruned_parameters: int
    dense_fingerprint: str
    version: str = field(default_factory=lambda: metadata.version("onnx-subprune"))


def write_stamp(model: onnx.ModelProto, stamp: Stamp) -> None:
    """Write the stamp into the metadata of the model, in place; a stamp of an earlier pruning is replaced.

    Args:
        model: its other metadata stay, byte for byte.
        stamp: how and by what the model was pruned.

    """
    others = [prop for prop in model.metadata_props if not prop.key.startswith(_PREFIX)]
    entries = [
        onnx.StringStringEntryProto(key=_PREFIX + name, value=str(getattr(stamp, name)))
        for name in sorted(entry.name for entry in fields(Stamp))
    ]
    kept = [onnx.StringStringEntryProto.FromString(prop.SerializeToString()) for prop in others]
    del model.metadata_props[:]
    model.metadata_props.extend([*kept, *entries])


def read_stamp(model: onnx.ModelProto) -> Stamp | None:
    """Return the stamp of a pruned model; None for a model without one.

    Args:
        model: any; only its metadata are read.

    Raises:
        ModelError: the stamp is there and incomplete, or a number in it is none.

    """
    stamped = [prop for prop in model.metadata_props if prop.key.startswith(_PREFIX)]
    entries = {prop.key.removeprefix(_PREFIX): prop.value for prop in stamped}
    if not entries:
        return None
    try:
        return _parse(entries)
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"expected a complete stamp under '{_PREFIX}', found a damaged one ({error}); prune the dense model again"
        ) from error


def _parse(entries: Mapping[str, str]) -> Stamp:
    return Stamp(
        target=entries["target"],
        dense_macs=int(entries["dense_macs"]),
        pruned_macs=int(entries["pruned_macs"]),
        dense_parameters=int(entries["dense_parameters"]),
        pruned_parameters=int(entries["pruned_parameters"]),
        dense_fingerprint=entries["dense_fingerprint"],
        version=entries["version"],
    )
