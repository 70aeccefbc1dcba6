"""Files that a command reads and writes, checked before the long work starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx_subprune import report
from onnx_subprune.calibration import Statistics
from onnx_subprune.errors import OptionError
from onnx_subprune.model import check_writable, external_files
from onnx_subprune.pipeline import Result

__all__ = ["check_outputs", "save_outputs", "saved_statistics"]


def check_outputs(
    inputs: Mapping[str, Path | str | None], outputs: Mapping[str, Path | None], *, pages: bool = True
) -> None:
    """Check that the outputs can be written and do not overwrite an input or each other.

    Args:
        inputs: by the name the user knows them by, such as MODEL; None where not given.
        outputs: likewise.
        pages: whether the report may be a page.

    Raises:
        OptionError: two names stand for one file, or the report's name does not say what it is to be.
        OutputError: a file cannot be written.

    """
    taken = {Path(path).resolve(): name for name, path in inputs.items() if path is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        if (other := taken.setdefault(path.resolve(), name)) != name:
            raise OptionError(f"expected {name} to be another file than {other}, found '{path}' for both; rename one")
        if name == "--report":
            report.check_name(path, pages=pages)
        check_writable(path)
        if name == "OUT":
            _check_data(path, inputs.get("MODEL"))


def _check_data(out: Path, model: Path | str | None) -> None:
    """Weights of a large model go to `<OUT>.data`, which must not be a file that MODEL reads its own from."""
    data = out.resolve().with_name(out.resolve().name + ".data")
    if model is not None and data.exists() and data in external_files(model):
        raise OptionError(
            f"expected OUT to leave the weights of MODEL alone, found them in '{data.name}', "
            "where those of OUT would go; rename OUT"
        )


def save_outputs(result: Result, outputs: Mapping[str, Path | None]) -> None:
    """Write the `outputs` that were asked for, each whole or not at all; the report comes after them.

    Raises:
        OutputError: a file cannot be written.

    """
    if (path := outputs.get("--statistics")) is not None and result.statistics is not None:
        result.statistics.save(path)
    if (path := outputs.get("--plan")) is not None:
        result.plan.save(path)
    if (path := outputs.get("OUT")) is not None:
        result.save(path)


def saved_statistics(calib: str | None, path: Path | None, *, needed: bool = True) -> Statistics | None:
    """Return the statistics to use instead of calibrating; None with `--calib`, or where none are `needed`.

    Raises:
        OptionError: neither data nor statistics are there.
        DataError: the file is not one of ours.

    """
    if calib is not None:
        return None
    if path is None:
        if needed:
            raise OptionError(
                "expected calibration data or statistics, found neither; give --calib DATA or --statistics FILE"
            )
        return None
    if not path.exists():
        raise OptionError(f"expected statistics at '{path}', found no file; give --calib DATA to make it")
    return Statistics.load(path)
