"""Files that a command reads and writes, checked before the long work starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnx_subprune.calibration import Statistics
from onnx_subprune.errors import OptionError
from onnx_subprune.model import check_writable

__all__ = ["check_outputs", "saved_statistics"]


def check_outputs(inputs: Mapping[str, Path | str | None], outputs: Mapping[str, Path | None]) -> None:
    """Check that the outputs can be written and do not overwrite an input or each other.

    Args:
        inputs: by the name the user knows them by, such as MODEL; None where not given.
        outputs: likewise.

    Raises:
        OptionError: two names stand for one file, or the report is not to be JSON.
        OutputError: a file cannot be written.
    """
    taken = {Path(path).resolve(): name for name, path in inputs.items() if path is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        if (other := taken.setdefault(path.resolve(), name)) != name:
            raise OptionError(f"expected {name} to be another file than {other}, found '{path}' for both; rename one")
        if name == "--report" and path.suffix != ".json":
            raise OptionError(f"expected a report FILE.json, found '{path}'; give a name that ends in .json")
        check_writable(path)


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
