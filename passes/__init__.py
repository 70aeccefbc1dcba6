"""Graph surgery, a pass per file; `base` says what a pass owes."""

from __future__ import annotations

from onnx_subprune.passes.absorb_constants import AbsorbConstants
from onnx_subprune.passes.base import Mandatory, Pass, PassResult, Sequence
from onnx_subprune.passes.drop_branches import DropBranches
from onnx_subprune.passes.expand_einsum import ExpandEinsum
from onnx_subprune.passes.fold_batchnorm import FoldBatchNorm
from onnx_subprune.passes.fold_constants import FoldConstants
from onnx_subprune.passes.fold_corrections import Bias, FoldCorrections, GiveBiases, corrected_weight, give_bias
from onnx_subprune.passes.hoist_branches import Branch, HoistBranches, name_apart, weighted_branches
from onnx_subprune.passes.inline_branches import InlineBranches
from onnx_subprune.passes.inline_functions import inline_functions
from onnx_subprune.passes.low_rank import LowRank
from onnx_subprune.passes.mask import MaskConsumers, Reading, losing_readings
from onnx_subprune.passes.mask_statistics import MaskStatistics
from onnx_subprune.passes.packing import has_candidates
from onnx_subprune.passes.recurrent_states import DropStates, NameStates
from onnx_subprune.passes.rescale import RescaleNormalised
from onnx_subprune.passes.rewrite_shapes import RewriteShapes
from onnx_subprune.passes.shrink import Shrink
from onnx_subprune.passes.sink_branches import SinkBranches
from onnx_subprune.passes.skip_concat import SkipConcat
from onnx_subprune.passes.stamp import Stamp, read_stamp, write_stamp
from onnx_subprune.passes.tidy import Tidy
from onnx_subprune.passes.unfold_constants import unfold_constants
from onnx_subprune.passes.unpack_projections import UnpackProjections
from onnx_subprune.passes.wiring import float_type, in_memory, names_known, overridable_initializers

__all__ = [
    "AbsorbConstants",
    "Bias",
    "Branch",
    "DropBranches",
    "DropStates",
    "ExpandEinsum",
    "FoldBatchNorm",
    "FoldConstants",
    "FoldCorrections",
    "GiveBiases",
    "HoistBranches",
    "InlineBranches",
    "LowRank",
    "Mandatory",
    "MaskConsumers",
    "MaskStatistics",
    "NameStates",
    "Pass",
    "PassResult",
    "Reading",
    "RescaleNormalised",
    "RewriteShapes",
    "Sequence",
    "Shrink",
    "SinkBranches",
    "SkipConcat",
    "Stamp",
    "Tidy",
    "UnpackProjections",
    "corrected_weight",
    "float_type",
    "give_bias",
    "has_candidates",
    "in_memory",
    "inline_functions",
    "losing_readings",
    "name_apart",
    "names_known",
    "overridable_initializers",
    "read_stamp",
    "unfold_constants",
    "weighted_branches",
    "write_stamp",
]
