"""Which channels belong together, what may be removed, and why the rest may not."""

from onnx_subprune.structure.axes import (
    ONE,
    Atom,
    Concat,
    Dim,
    Keeps,
    Monomials,
    dims_of,
    evaluate,
    fixed,
    fresh,
    keep_mask,
    product,
    unit_index,
)
from onnx_subprune.structure.branch_places import BRANCHES, Place, branch_of, handed_out, is_hoisted, places_of
from onnx_subprune.structure.branches import Removal, emptied
from onnx_subprune.structure.dtypes import is_float
from onnx_subprune.structure.factorisable import Layer, layers_of
from onnx_subprune.structure.features import Features, features_of, normalised_features, sides_of
from onnx_subprune.structure.groups import Group, Structure
from onnx_subprune.structure.infer import infer
from onnx_subprune.structure.normalisations import NORMALISED_OPTION, Normalisation, Spread, Statistic
from onnx_subprune.structure.records import (
    DEFAULT_DOMAINS,
    PASSED_THROUGH,
    RECURRENT,
    RECURRENT_STATES,
    Consumer,
    Contraction,
    IndexUse,
    MacTerm,
    ReadValues,
    Records,
    SizeUse,
    Squeezed,
    Use,
    Weight,
)
from onnx_subprune.structure.rule_errors import RuleError
from onnx_subprune.structure.rules.quantised import QUANTISED
from onnx_subprune.structure.weight_blocks import as_blocks, from_blocks

__all__ = [
    "BRANCHES",
    "DEFAULT_DOMAINS",
    "NORMALISED_OPTION",
    "ONE",
    "PASSED_THROUGH",
    "QUANTISED",
    "RECURRENT",
    "RECURRENT_STATES",
    "Atom",
    "Concat",
    "Consumer",
    "Contraction",
    "Dim",
    "Features",
    "Group",
    "IndexUse",
    "Keeps",
    "Layer",
    "MacTerm",
    "Monomials",
    "Normalisation",
    "Place",
    "ReadValues",
    "Records",
    "Removal",
    "RuleError",
    "SizeUse",
    "Spread",
    "Squeezed",
    "Statistic",
    "Structure",
    "Use",
    "Weight",
    "as_blocks",
    "branch_of",
    "dims_of",
    "emptied",
    "evaluate",
    "features_of",
    "fixed",
    "fresh",
    "from_blocks",
    "handed_out",
    "infer",
    "is_float",
    "is_hoisted",
    "keep_mask",
    "layers_of",
    "normalised_features",
    "places_of",
    "product",
    "sides_of",
    "unit_index",
]
