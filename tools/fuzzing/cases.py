"""The damaged files and the command line of every number, the same each time."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from fuzzing import mutate, seeds
from onnx_subprune import pipeline
from onnx_subprune.options import Options, Target

OUT = "out.onnx"
OLD = b"what stood under the name of OUT before"
TARGET = ("--target", "units=0.6")
COMMANDS = (
    *[("inspect", "MODEL")] * 10,
    ("inspect", "MODEL", "--json"),
    ("inspect", "MODEL", "--report", "report.html"),
    *[("prune", "MODEL", OUT, "--calib", "DATA", *TARGET, "--effort", "fast")] * 3,
    ("prune", "MODEL", OUT, "--calib", "DATA", *TARGET),
    ("factorise", "MODEL", OUT, "--calib", "DATA", "--target", "params=0.9"),
    ("eval", "SOUND", "MODEL", "--data", "DATA", "--metric", "fidelity"),
    ("bench", "MODEL", "--runs", "3"),
)
ON_DATA: Mapping[str, tuple[str, ...]] = {
    "calib.npz": ("prune", "SOUND", OUT, "--calib", "calib.npz", *TARGET, "--effort", "fast"),
    "packed.npz": ("eval", "SOUND", "SOUND", "--data", "packed.npz", "--metric", "fidelity"),
    "calib.npy": ("prune", "SOUND", OUT, "--calib", "calib.npy", *TARGET, "--effort", "fast"),
    "set/test_data_set_0/input_0.pb": ("factorise", "SOUND", OUT, "--calib", "set", "--target", "params=0.9"),
    "plan.json": ("apply", "plan.json", "SOUND", OUT, "--calib", "SOUND DATA"),
    "statistics.safetensors": (
        "prune",
        "SOUND",
        OUT,
        "--statistics",
        "statistics.safetensors",
        *TARGET,
        "--effort",
        "fast",
    ),
}
"""The file that is damaged, and the command that reads it."""


@dataclass(frozen=True)
class Case:
    """A damaged file, as bytes, and the command line that reads it.

    Attributes:
        number: which case it is.
        name: what was damaged, in words.
        file: where it lies, in the folder of the case.
        content: of the file.
        words: the command line.

    """

    number: int
    name: str
    file: str
    content: bytes
    words: tuple[str, ...]


class Cases:
    """All cases.

    Args:
        folder: for files that are sound; they are written once.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models = seeds.models()
        self._files: dict[str, bytes] = {}

    def __call__(self, number: int) -> Case:
        """Return a case."""
        rng = random.Random(number)
        return self._data_case(rng, number) if number % 5 == 4 else self._model_case(rng, number)

    def _model_case(self, rng: random.Random, number: int) -> Case:
        # The sizes of the files must not matter: as much damage to each.
        name = rng.choice(sorted(self._models))
        content = mutate.damaged_model(rng, self._models[name])
        case = Case(number, f"model {name}", "model.onnx", content, rng.choice(COMMANDS))
        return self._named(case, name)

    def _data_case(self, rng: random.Random, number: int) -> Case:
        file = rng.choice(sorted(ON_DATA))
        if not self._files:
            self._files = sound_files(seeds.written("convolutions"))
        damage = DAMAGE.get(Path(file).suffix, mutate.damaged_bytes)
        content = damage(rng, self._files[file])
        return self._named(Case(number, f"data {file}", file, content, ON_DATA[file]), "convolutions")

    def _named(self, case: Case, model: str) -> Case:
        """Put the names of files into the command line, and write those that are sound."""
        sound = self._folder / f"{model.replace('/', '-')}.onnx"
        data = seeds.CASES.parent / f"{model}.npz"
        if not model.startswith("cases/"):
            data = sound.with_suffix(".npz")
        if not sound.exists():
            sound.write_bytes(self._models[model])
            if not data.is_file():
                data = sound.with_suffix(".npz")
                np.savez(data, **seeds.samples(onnx.load_from_string(self._models[model])))
        names = {"MODEL": "model.onnx", "SOUND": str(sound), "DATA": str(data), "SOUND DATA": str(data)}
        return replace(case, words=tuple(names.get(word, word) for word in case.words))


def sound_files(model: onnx.ModelProto) -> dict[str, bytes]:
    """Return data, a plan and statistics for a model, by the names of `ON_DATA`."""
    arrays = seeds.samples(model)
    (array,) = arrays.values()
    files = {"set/test_data_set_0/input_0.pb": onnx.numpy_helper.from_array(array, *arrays).SerializeToString()}
    savers: Mapping[str, Callable[[io.BytesIO], None]] = {
        "calib.npz": lambda stream: np.savez(stream, **arrays),
        "packed.npz": lambda stream: np.savez_compressed(stream, **arrays),
        "calib.npy": lambda stream: np.save(stream, array),
    }
    for name, save in savers.items():
        stream = io.BytesIO()
        save(stream)
        files[name] = stream.getvalue()
    options = Options.of_effort("fast", target=Target("units", 0.6))
    files["plan.json"] = pipeline.prune(model, arrays, options).plan.to_json().encode()
    files["statistics.safetensors"] = _saved(pipeline.calibrate(model, arrays, options).save)
    return files


def _saved(save: Callable[[Path], None]) -> bytes:
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def _damaged_plan(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return mutate.damaged_bytes(rng, data)
    damaged = mutate.damaged_json(rng, data)
    if rng.random() < 0.5:
        return damaged
    # Without its checksum, so that what is in it is looked at.
    try:
        document = json.loads(damaged)
    except RecursionError:
        return damaged
    return json.dumps({key: value for key, value in document.items() if key != "checksum"}).encode()


def _damaged_statistics(rng: random.Random, data: bytes) -> bytes:
    """Damage the bytes of a safetensors file, or the JSON at its head, whose length stands before it."""
    if rng.random() < 0.5:
        return mutate.damaged_bytes(rng, data)
    size = int.from_bytes(data[:8], "little")
    head = mutate.damaged_json(rng, data[8 : 8 + size])
    length = rng.choice((len(head), len(head), len(head), 2**63, 2**31))
    return length.to_bytes(8, "little") + head + data[8 + size :]


def _damaged_tensor(rng: random.Random, data: bytes) -> bytes:
    return (mutate.damaged_fields if rng.random() < 0.6 else mutate.damaged_bytes)(rng, data)


DAMAGE: Mapping[str, mutate.Mutator] = {
    ".json": _damaged_plan,
    ".safetensors": _damaged_statistics,
    ".pb": _damaged_tensor,
}
