"""Nothing that lies in the current folder runs unless it was named: not in this process, nor in one that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx_subprune

ROOT = Path(onnx_subprune.__file__).parents[1]
# As the installed command starts: without the current folder among the places of modules.
COMMAND = [sys.executable, "-P", "-c", "from onnx_subprune.cli import main; main()"]
NAMES = ("json", "numpy", "onnx", "onnxruntime", "sitecustomize", "usercustomize", "onnx_subprune", "pickle", "helper")
SCRIPT = "import numpy\ndef load():\n    yield {'x': numpy.ones((2, 3, 6, 6), numpy.float32)}\n"


def test_no_module_of_the_current_folder_runs(model: Path, tmp_path: Path) -> None:
    folder, proof = tmp_path / "hostile", tmp_path / "it ran"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"open({str(proof)!r}, 'w').close()\n")
    (folder / "load.py").write_text(SCRIPT)
    words = ["bench", str(model), "--memory", "--runs", "1", "--data", "load.py:load", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*COMMAND, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '"memory": {' in done.stdout
    assert not proof.exists()
    assert sorted(path.name for path in folder.iterdir()) == sorted([*(f"{name}.py" for name in NAMES), "load.py"])


def test_the_files_would_have_run(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("print('it ran')\n")
    command = [sys.executable, "-c", "import json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "it ran\n"
