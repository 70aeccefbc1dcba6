"""The stamp: written, read back, replaced, and nobody else's metadata touched."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata

import onnx
import pytest

from onnx_subprune.errors import ModelError
from onnx_subprune.passes import Stamp, read_stamp, write_stamp

STAMP = Stamp(
    target="macs=0.5",
    dense_macs=1000,
    pruned_macs=500,
    dense_parameters=80,
    pruned_parameters=40,
    dense_fingerprint="abc",
)


@pytest.fixture
def model() -> onnx.ModelProto:
    model = onnx.ModelProto(ir_version=8)
    model.metadata_props.add(key="author", value="someone")
    model.metadata_props.add(key="pkg.other.version", value="3")
    return model


def test_round_trip_keeps_the_metadata_of_others(model: onnx.ModelProto) -> None:
    write_stamp(model, STAMP)
    again = onnx.ModelProto.FromString(model.SerializeToString())
    assert read_stamp(again) == STAMP
    pairs = [(prop.key, prop.value) for prop in again.metadata_props]
    assert pairs[:2] == [("author", "someone"), ("pkg.other.version", "3")]
    assert dict(pairs)["pkg.onnx_subprune.version"] == metadata.version("onnx-subprune")
    assert len(pairs) == 2 + 7


def test_a_second_stamp_replaces_the_first_and_is_deterministic(model: onnx.ModelProto) -> None:
    write_stamp(model, STAMP)
    first = model.SerializeToString()
    other = replace(STAMP, target="params=0.3")
    write_stamp(model, other)
    assert read_stamp(model) == other
    write_stamp(model, STAMP)
    assert model.SerializeToString() == first


def test_no_stamp(model: onnx.ModelProto) -> None:
    assert read_stamp(model) is None


@pytest.mark.parametrize("damage", [None, "many"])
def test_a_damaged_stamp_is_refused(model: onnx.ModelProto, damage: str | None) -> None:
    write_stamp(model, STAMP)
    index = next(i for i, prop in enumerate(model.metadata_props) if prop.key.endswith("dense_macs"))
    if damage is None:
        del model.metadata_props[index]
    else:
        model.metadata_props[index].value = damage
    with pytest.raises(ModelError, match="expected a complete stamp"):
        read_stamp(model)
