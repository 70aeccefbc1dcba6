"""Libraries of custom operators: registered once with the process, and then with every session of it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from onnx_subprune import Options, analyse
from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.model import custom_operators, custom_ops, load_model, open_session, register_custom_ops
from onnx_subprune.network.inputs import prepare

FOREIGN = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3] x) => (float[2,3] y) { a = my.own.Thing(x) y = Relu(a) }"""


def test_a_library_is_registered_with_every_session_from_then_on(
    custom_library: Path, registrations: Callable[[], int], model: onnx.ModelProto
) -> None:
    open_session(model)
    assert registrations() == 0
    register_custom_ops([custom_library])
    assert registrations() == 1, "it is tried when it is named, not in the middle of a run"
    register_custom_ops([custom_library, str(custom_library)])
    assert registrations() == 1
    open_session(model)
    open_session(model, optimise=False)
    assert registrations() == 3
    assert custom_ops() == (str(custom_library),)


def test_a_bare_name_is_a_file_of_this_folder(custom_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's loader would look for it in its own folders."""
    monkeypatch.chdir(custom_library.parent)
    register_custom_ops([custom_library.name])
    assert custom_ops() == (str(custom_library.resolve()),)


def test_options_register_it_where_a_run_starts(custom_library: Path, model: onnx.ModelProto) -> None:
    prepare(model, None, Options(custom_ops=(str(custom_library),)))
    assert custom_ops() == (str(custom_library),)


def _text(folder: Path) -> Path:
    (folder / "ops.so").write_text("no library\n")
    return folder / "ops.so"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none.so", "no such file; check the path"),
        (lambda folder: folder, "a folder; check the path"),
        (_text, "found: Failed to load library .*; build it again, or name another"),
    ],
)
def test_a_library_that_cannot_be_loaded_is_one_line(
    make: Callable[[Path], Path], words: str, tmp_path: Path, custom_library: Path
) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        register_custom_ops([make(tmp_path)])
    assert "\n" not in str(caught.value)
    assert custom_ops() == (), "what failed is not registered"


def test_a_library_of_something_else_is_one_line(custom_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import _ctypes  # noqa: PLC0415  (a shared library without operators)

    with pytest.raises(OptionError, match=r"exports RegisterCustomOps, found: .*RegisterCustomOps"):
        register_custom_ops([_ctypes.__file__])


def test_the_package_stands_for_its_library(custom_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType(custom_operators.EXTENSIONS)
    package.get_library_path = lambda: str(custom_library)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    register_custom_ops(["onnxruntime_extensions", "onnxruntime-extensions"])
    assert custom_ops() == (str(custom_library),)


def test_the_package_has_to_be_installed(custom_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(OptionError, match="found none installed; pip install onnxruntime-extensions"):
        register_custom_ops(["onnxruntime_extensions"])


def test_a_domain_need_not_be_imported_where_a_library_may_bring_it(custom_library: Path, tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(onnx.parser.parse_model(FOREIGN), path)
    with pytest.raises(ModelError, match=r"found domain 'my\.own'"):
        load_model(path)
    register_custom_ops([custom_library])
    assert [entry.domain for entry in load_model(path).opset_import] == ["", "my.own"]


def test_an_unknown_operator_is_refused_with_the_option_that_helps() -> None:
    with pytest.raises(ModelError, match=r"my\.own:Thing.*is not a registered function/op; if it is .* --custom-ops$"):
        open_session(onnx.parser.parse_model(FOREIGN.replace('"" : 17', '"" : 17, "my.own" : 1')))


def test_analysis_takes_a_message_that_forgets_a_domain() -> None:
    model = onnx.parser.parse_model(FOREIGN)
    assert analyse(model).structure.groups == ()
    assert len(model.opset_import) == 1, "the user's model stays as it was"
