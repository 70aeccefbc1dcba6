"""What a network and its data give to planning and recovery: the distance of outputs, or none without data."""

from __future__ import annotations

import dataclasses

import onnx
import pytest

from onnx_subprune.model import array_of
from onnx_subprune.network.calibrated import Calibrated, output_distance
from onnx_subprune.network.inputs import prepare
from onnx_subprune.options import Options


def _doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with twice its last weight: its outputs are off by as much as they are."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == "w3":
            tensor.CopyFrom(onnx.numpy_helper.from_array(2 * array_of(tensor), tensor.name))
    return copy


def test_without_data_there_is_no_distance(model) -> None:
    options = Options(threads=1)
    analysis, dataset = prepare(model, None, options)
    assert dataset is None
    assert output_distance(analysis, dataset, options) is None


def test_the_distance_is_of_the_network_as_it_is_normalised(model, samples) -> None:
    options = Options(threads=1, batch_size=8)
    analysis, dataset = prepare(model, samples, options)
    distance = output_distance(analysis, dataset, options)
    assert distance is not None
    assert distance.holds_out
    assert distance(analysis.normalised) < 1e-10
    assert distance(_doubled(analysis.normalised)) == pytest.approx(1.0, rel=1e-4)


def test_shapes_of_samples_are_kept_for_each_network_alone(model) -> None:
    options = Options(threads=1)
    analysis, _ = prepare(model, None, options)
    first, second = (Calibrated(analysis, None, None, options) for _ in range(2))
    first.sample_shapes["a"] = (1, 8)
    assert second.sample_shapes == {}
    replaced = dataclasses.replace(first, options=options)
    assert replaced.sample_shapes is first.sample_shapes, "one network, whatever the options"
