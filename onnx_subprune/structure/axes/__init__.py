"""The algebra of axes.

`terms` says what an axis is, `unification` which axes keep the same indices, `masks` which entries stay once units are
gone. Sizes that a graph computes are `size_expressions`; sizes that it only names are `symbolic_sizes`. `polynomials`
counts what a network costs for given widths.
"""

from onnx_subprune.structure.axes.masks import Keeps, keep_mask, unit_index
from onnx_subprune.structure.axes.polynomials import Monomials, Products
from onnx_subprune.structure.axes.size_expressions import (
    Extent,
    Monomial,
    Operation,
    Size,
    Unknown,
    apply,
    dense,
    dims_of,
    evaluate,
    fixed,
    in_step,
    monomial,
    proportional,
    total,
)
from onnx_subprune.structure.axes.symbolic_sizes import Doubt, Symbols
from onnx_subprune.structure.axes.terms import (
    ONE,
    Atom,
    Concat,
    Dim,
    Factor,
    concat,
    covers,
    fresh,
    pair_covered,
    product,
    purely_dynamic,
)
from onnx_subprune.structure.axes.unification import carve, freeze, same_size, set_apart, split, unify

__all__ = [
    "ONE",
    "Atom",
    "Concat",
    "Dim",
    "Doubt",
    "Extent",
    "Factor",
    "Keeps",
    "Monomial",
    "Monomials",
    "Operation",
    "Products",
    "Size",
    "Symbols",
    "Unknown",
    "apply",
    "carve",
    "concat",
    "covers",
    "dense",
    "dims_of",
    "evaluate",
    "fixed",
    "freeze",
    "fresh",
    "in_step",
    "keep_mask",
    "monomial",
    "pair_covered",
    "product",
    "proportional",
    "purely_dynamic",
    "same_size",
    "set_apart",
    "split",
    "total",
    "unify",
    "unit_index",
]
