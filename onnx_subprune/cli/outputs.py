"""Files that a command reads and writes: checked before the long work starts, and written together at its end."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from onnx_subprune import report
from onnx_subprune.calibration import Statistics
from onnx_subprune.errors import OptionError, OutputError
from onnx_subprune.formatting import count
from onnx_subprune.model import check_writable, external_files, is_data_name, sweep
from onnx_subprune.options import Target
from onnx_subprune.pipeline import Result

__all__ = ["check_outputs", "check_room", "save_outputs", "saved_statistics"]

_logger = logging.getLogger(__name__)

_WEIGHTS_OF_OUT, _WEIGHTS_OF_MODEL = "the weights of OUT", "the weights of MODEL"

_Identity: TypeAlias = str | tuple[int, int, str]


def check_outputs(
    inputs: Mapping[str, Path | str | None], outputs: Mapping[str, Path | None], *, pages: bool = True
) -> None:
    """Check that the outputs can be written and do not overwrite an input or each other.

    One file may have several names: links, hard links and other spellings count as the file that they name. What killed
    runs left in the folders of the outputs and in that of temporary files is removed.

    Args:
        inputs: by the name the user knows them by, such as MODEL; None where not given. A model stands for its external
            data too, a folder for all files in it, and `file.py:function` for the script.
        outputs: likewise. OUT stands for `<OUT>.<digits>.data` too, where the weights of a large model go.
        pages: whether the report may be a page.

    Raises:
        OptionError: two names stand for one file, or the report's name does not say what it is to be.
        OutputError: a file cannot be written.

    """
    given = {name: path for name, path in outputs.items() if path is not None}
    written = list(given.items())
    written += [(_WEIGHTS_OF_OUT, path) for path in _weights_of(given)]
    # What is not there yet cannot be a file that is read: only then are folders and models looked into.
    thorough = any(os.path.exists(path) for _, path in written)
    taken: dict[_Identity, str] = {}
    for name, source in inputs.items():
        for path, described in _files_read(name, source, thorough=thorough):
            for identity in _identities(path):
                taken.setdefault(identity, described)
    for name, path in written:
        identities = _identities(path)
        other = next((taken[identity] for identity in identities if identity in taken), None)
        if other is not None:
            raise OptionError(_overlap(name, path, other))
        if name != _WEIGHTS_OF_OUT:
            taken.update(dict.fromkeys(identities, name))
    for name, path in given.items():
        if name == "--report":
            report.check_name(path, pages=pages)
        check_writable(path)
    sweep(Path(tempfile.gettempdir()))


def check_room(model: Path, out: Path | None, target: Target) -> None:
    """Check that there is room for OUT before the long work starts.

    Args:
        model: the dense model, with its weights in files beside it.
        out: where the pruned one goes; None for nowhere.
        target: of parameters says how much of them stays at least; of any other one nothing is known.

    Raises:
        OutputError: there is less room than OUT will take.

    """
    if out is None or not model.is_file():
        return
    size = model.stat().st_size + sum(path.stat().st_size for path in external_files(model) if path.is_file())
    room = shutil.disk_usage(Path(os.path.realpath(out)).parent).free
    least = target.value * size if target.kind == "params" else 0
    if room < least:
        raise OutputError(
            f"cannot write '{out}': expected room for {count(round(least), 'B')} or more, found {count(room, 'B')}; "
            "free some, or name another folder"
        )
    if room < size:
        _logger.warning("'%s' may need up to %s, found room for %s", out, count(size, "B"), count(room, "B"))


def _weights_of(outputs: Mapping[str, Path]) -> list[Path]:
    """Return the files beside OUT, there or to be written, with a name that the weights of a large OUT may have."""
    if "OUT" not in outputs:
        return []
    target = Path(os.path.realpath(outputs["OUT"]))
    beside = [target.with_name(os.path.basename(os.path.realpath(path))) for path in outputs.values()]
    with contextlib.suppress(OSError):
        beside += sorted(target.parent.iterdir())
    return [path for path in beside if is_data_name(path.name, target.name)]


def _files_read(name: str, source: Path | str | None, *, thorough: bool) -> Iterator[tuple[Path, str]]:
    """Yield the files that are read from a source, each with the name that the user knows it by."""
    if source is None:
        return
    script, colon, _ = str(source).rpartition(":")
    path = Path(script) if colon and script.endswith(".py") else Path(source)
    yield path, name
    if not thorough:
        return
    if os.path.isdir(path):
        # A data set of ONNX is a folder of folders; nothing deeper is read.
        for file in itertools.chain(path.glob("*"), path.glob("*/*")):
            yield file, f"'{file.relative_to(path)}' of {name}"
    elif name == "MODEL":
        yield from ((file, _WEIGHTS_OF_MODEL) for file in external_files(path))


def _identities(path: Path) -> list[_Identity]:
    """Return what names of one file have in common: its real path, its place in a folder, and its inode."""
    real = Path(os.path.realpath(path))
    identities: list[_Identity] = [str(real)]
    with contextlib.suppress(OSError):
        folder = real.parent.stat()
        identities.append((folder.st_dev, folder.st_ino, real.name))
    with contextlib.suppress(OSError):
        status = real.stat()
        identities.append((status.st_dev, status.st_ino, ""))
    return identities


def _overlap(name: str, path: Path, other: str) -> str:
    if name == _WEIGHTS_OF_OUT:
        return (
            f"expected OUT to leave {other} alone, found them in '{path.name}', where those of OUT would go; rename OUT"
            if other == _WEIGHTS_OF_MODEL
            else f"expected OUT to leave {other} alone, found it in '{path.name}', where the weights of a large OUT "
            "would go; rename OUT"
        )
    return f"expected {name} to be another file than {other}, found '{path}' for both; rename one"


def save_outputs(result: Result, document: Mapping[str, Any], outputs: Mapping[str, Path | None]) -> None:
    """Write the `outputs` that were asked for, OUT last.

    Args:
        result: of a pruning.
        document: what the report tells.
        outputs: by the names of their options.

    Raises:
        OutputError: a file cannot be written.

    """
    if (path := outputs.get("--statistics")) is not None and result.statistics is not None:
        result.statistics.save(path)
    if (path := outputs.get("--plan")) is not None:
        result.plan.save(path)
    if (path := outputs.get("--report")) is not None:
        report.write_report(document, path)
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
