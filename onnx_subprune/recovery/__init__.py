"""From a plan to the smaller network, with what the removed units contributed folded into what stays."""

from onnx_subprune.recovery.normalisation_rescaling import normalisation_readers, rescalings
from onnx_subprune.recovery.stages import Recovered, by_channel, recover, resume, settings
from onnx_subprune.recovery.unrecovered import OutputErrors, better_than_none, unmeasured_share

__all__ = [
    "OutputErrors",
    "Recovered",
    "better_than_none",
    "by_channel",
    "normalisation_readers",
    "recover",
    "rescalings",
    "resume",
    "settings",
    "unmeasured_share",
]
