"""The methods: presets of this program, and its rivals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnx_subprune.options import EFFORTS, Options

__all__ = ["METHODS", "Method"]

OURS, ONNXSIM, TORCH = "onnx-subprune", "onnxsim.pruning", "Torch-Pruning"


@dataclass(frozen=True)
class Method:
    """A way to prune.

    Attributes:
        label: what the page calls it.
        program: which program does it.
        settings: changes of the default `Options`, or what the rival's process is told.
        calibrated: whether it looks at calibration data; where not, a figure holds for any number of samples.
        one_pass: whether statistics of the dense network are all it needs: they are taken once for all budgets.
        baseline: whether it is here to be compared with.
        factorises: whether it splits layers in place of pruning them.
        studied: whether the page asks for it by number and subset of samples, and for its time.

    """

    label: str
    program: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    calibrated: bool = True
    one_pass: bool = False
    baseline: bool = False
    factorises: bool = False
    studied: bool = False

    @property
    def signature(self) -> str:
        """The settings as text: figures of other settings are not this method's."""
        return " ".join(f"{name}={value}" for name, value in sorted(self.settings.items()))

    def options(self, **more: Any) -> Options:
        """Options of this program."""
        return Options(**{**self.settings, **more})


def _one_pass(select: str, recovery: str, allocation: str = "cutoff") -> dict[str, Any]:
    """Settings in full, so that a row stays what it is when defaults change."""
    return {"select": select, "recovery": recovery, "allocation": allocation, "one_pass": True}


def _of_effort(name: str) -> dict[str, Any]:
    """What an effort sets."""
    options = Options.of_effort(name)
    names = ("select", "recovery", "allocation", "one_pass", "rows", "probes", "levels", "trials", "sweeps")
    return {each: getattr(options, each) for each in names}


# A new way to prune is a line here; the page shows the methods in this order.
METHODS: dict[str, Method] = {
    "torch-l1": Method("Torch-Pruning, L1 magnitude", TORCH, {"p": 1}, calibrated=False),
    "torch-l2": Method("Torch-Pruning, L2 magnitude", TORCH, {"p": 2}, calibrated=False),
    "torch-inner": Method("Torch-Pruning, L2, inner channels only", TORCH, {"p": 2, "inner": True}, calibrated=False),
    "onnxsim-norm": Method("`onnxsim.pruning`, L2 norm", ONNXSIM, {"mode": "norm"}, calibrated=False),
    "onnxsim-wanda": Method("`onnxsim.pruning`, Wanda", ONNXSIM, {"mode": "wanda"}),
    "magnitude": Method(
        "L1 magnitude, no recovery", OURS, _one_pass("magnitude", "none"), one_pass=True, baseline=True
    ),
    "wanda": Method(
        "weights times activations, no recovery", OURS, _one_pass("wanda", "none"), one_pass=True, baseline=True
    ),
    "low-rank": Method("low-rank factorisation", OURS, one_pass=True, baseline=True, factorises=True),
    "cut": Method("the paper's order, no recovery", OURS, _one_pass("zca", "none"), one_pass=True, baseline=True),
    "paper": Method(
        "the paper's method", OURS, _one_pass("zca", "channel"), one_pass=True, studied=True, baseline=True
    ),
    "obs": Method("OBS order, recovery", OURS, _one_pass("obs", "channel"), one_pass=True),
    "obs-loss": Method("OBS order, recovery, budget by loss", OURS, _one_pass("obs", "channel", "loss"), one_pass=True),
    **{
        name: Method(f"effort {name}", OURS, settings, one_pass=settings["one_pass"], studied=True)
        for name, settings in ((name, _of_effort(name)) for name in EFFORTS)
    },
    "sequential": Method(
        "OBS order, exact recovery, layer after layer",
        OURS,
        {"select": "obs", "recovery": "exact", "allocation": "cutoff", "one_pass": False},
    ),
    "uniform": Method(
        "effort balanced, the same share of every group",
        OURS,
        {**_of_effort("balanced"), "allocation": "uniform"},
    ),
}
