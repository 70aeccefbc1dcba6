"""The environment: versions, the runtime and its providers, and what of ONNX it can read.

`onnxruntime.get_available_providers()` names the compiled-in providers, not those that load; a session on a tiny
model tells the truth. Two builds of ONNX Runtime share one folder and overwrite each other's files, which
pip does not notice.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

import onnx
import onnxruntime as ort
from rich.table import Table

from onnx_subprune.errors import SubpruneError
from onnx_subprune.model import open_session
from onnx_subprune.report.table import table

__all__ = ["Environment", "environment_table", "examine", "versions"]

RUNTIMES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
    "onnxruntime-silicon",
    "onnxruntime-training",
    "ort-nightly",
    "ort-nightly-gpu",
)
LIBRARIES = ("jinja2", "numpy", "onnx", "onnx-graphsurgeon", "rich", "safetensors", "scipy", "typer")
_OLDEST_IR = 3
# Every ONNX Runtime reads these; the probes for one number hold the other at it.
_SAFE_IR, _SAFE_OPSET = 8, 13


@dataclass(frozen=True)
class Environment:
    """The installed packages, and which of them work.

    Attributes:
        versions: by distribution; runtimes that are not installed are left out.
        runtimes: the builds of ONNX Runtime that are installed: more than one is a clash.
        providers: by execution provider that the build names: None if it loads, else why not.
        opset: newest opset of the default domain that the runtime reads; None if none was.
        ir_version: newest IR version that it reads; None if none was.

    """

    versions: dict[str, str]
    runtimes: tuple[str, ...]
    providers: dict[str, str | None]
    opset: int | None
    ir_version: int | None

    @property
    def problems(self) -> list[str]:
        """What makes the environment unusable, and what to do about it."""
        problems = []
        if len(self.runtimes) > 1:
            names = " and ".join(self.runtimes)
            problems.append(
                f"expected one build of ONNX Runtime, found {names}, which overwrite each other; "
                f"run 'pip uninstall {' '.join(self.runtimes)}', then install one of them"
            )
        refusal = self.providers.get("CPUExecutionProvider", "it is not in this build")
        if refusal is not None:
            problems.append(f"expected ONNX Runtime to run on the CPU, found: {refusal}; install it again")
        elif self.opset is None or self.ir_version is None:
            problems.append("expected ONNX Runtime to read a tiny model, found that it reads none; install it again")
        return problems


def versions() -> dict[str, str]:
    """Return the versions of this package, Python, the libraries and the installed builds of ONNX Runtime."""
    names = ("onnx-subprune", *LIBRARIES, *RUNTIMES)
    installed = {name: version for name in names if (version := _version(name)) is not None}
    return {"python": platform.python_version(), **installed}


def examine() -> Environment:
    """Look at the environment; takes a second or two, because every provider is tried."""
    installed = versions()
    runtimes = tuple(name for name in RUNTIMES if name in installed)
    providers = {name: _refusal([name]) for name in ort.get_available_providers()}
    opsets = range(onnx.defs.onnx_opset_version(), 0, -1)
    irs = range(int(onnx.IR_VERSION), _OLDEST_IR - 1, -1)
    return Environment(
        versions=installed,
        runtimes=runtimes,
        providers=providers,
        opset=_first(opsets, lambda opset: _refusal(["cpu"], opset=opset) is None),
        ir_version=_first(irs, lambda ir: _refusal(["cpu"], ir_version=ir) is None),
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _refusal(providers: list[str], *, opset: int = _SAFE_OPSET, ir_version: int = _SAFE_IR) -> str | None:
    """Return why a tiny model does not open, or None if it does."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "probe", [value], [result])
    opsets = [onnx.helper.make_opsetid("", opset)]
    try:
        open_session(onnx.helper.make_model(graph, ir_version=ir_version, opset_imports=opsets), providers)
    except SubpruneError as error:
        return str(error)
    return None


def _first(candidates: Iterable[int], accepts: Callable[[int], bool]) -> int | None:
    return next((number for number in candidates if accepts(number)), None)


def environment_table(environment: Environment, multiples: Mapping[str, Mapping[str, int]] | None = None) -> Table:
    """Return a table of an environment.

    Args:
        environment: installed packages, providers that load, files that can be read, and faults.
        multiples: of units that are known to be fast, by the providers they were measured with and by kind of work.

    """
    rows = [
        *environment.versions.items(),
        *((name, _loads(name, refusal)) for name, refusal in environment.providers.items()),
        ("newest opset that can be read", str(environment.opset)),
        ("newest IR version that can be read", str(environment.ir_version)),
        *((f"fast multiples ({where})", _multiples_text(by_family)) for where, by_family in (multiples or {}).items()),
        *(("problem", problem) for problem in environment.problems),
    ]
    return table(("environment", ""), rows, "ll")


def _loads(provider: str, refusal: str | None) -> str:
    return "loads" if refusal is None else refusal.removeprefix(f"provider '{provider}' ")


def _multiples_text(multiples: Mapping[str, int]) -> str:
    return ", ".join(f"{family} {multiple}" for family, multiple in multiples.items())
