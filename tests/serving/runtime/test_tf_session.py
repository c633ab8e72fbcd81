"""The private parts of TensorFlow that the server uses; these tests say which of them a new TensorFlow has moved."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

from serving.runtime.background import NICENESS, Background, Native, at_once
from serving.runtime.saved_model import LoadOptions, load
from tests.conftest import TinyModel

PRIVATE_PARTS = {
    "runs a graph": (
        "tensorflow.python.client.session",
        ["Session", "BaseSession._make_callable_from_options", "BaseSession._Callable.__call__"],
    ),
    "imports a graph": (
        "tensorflow.python.client.pywrap_tf_session",
        [
            "TF_GraphImportGraphDefWithResults",
            "TF_ImportGraphDefOptionsSetUniquifyNames",
            "TF_DeleteImportGraphDefResults",
            "TF_NewBufferFromString",
            "TF_DeleteBuffer",
        ],
    ),
    "loads libraries of operations": ("tensorflow.python.client.pywrap_tf_session", ["TF_LoadLibrary"]),
    "leaves out default attributes": ("tensorflow.python.framework.importer", ["_RemoveDefaultAttrs"]),
    "says how to import": ("tensorflow.python.framework.c_api_util", ["ScopedTFImportGraphDefOptions"]),
    "frees a graph": ("tensorflow.python.framework.ops", ["Graph", "Graph._c_graph", "dismantle_graph"]),
    "knows operations": ("tensorflow.python.framework.op_def_registry", ["get"]),
    "refuses": ("tensorflow.python.framework.errors_impl", ["OpError"]),
    "reads warm-up records": ("tensorflow.python.lib.io._pywrap_record_io", ["RecordIterator"]),
    "says why a saved_model.pb is unreadable": (
        "tensorflow.python.saved_model.pywrap_saved_model",
        ["fingerprinting.CreateFingerprintDef", "fingerprinting.FingerprintException"],
    ),
}
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("what", PRIVATE_PARTS)
def test_tensorflow_still_has_what_this_needs(what: str) -> None:
    """What a new TensorFlow no longer has is named here, with what the server cannot do without it."""
    module, names = PRIVATE_PARTS[what]
    for name in names:
        found = importlib.import_module(module)
        for part in name.split("."):
            assert hasattr(found, part), f"the server no longer {what}: {module} has no {name}"
            found = getattr(found, part)


def test_private_parts_are_in_one_file() -> None:
    """What TensorFlow moves has to be followed in `serving/runtime/tf_session.py` alone."""
    sources = [path for room in ("serving", "clients", "flows") for path in (ROOT / room).rglob("*.py")]
    leaning = [path.relative_to(ROOT).as_posix() for path in sources if "tensorflow.python" in path.read_text("utf-8")]
    assert leaning == ["serving/runtime/tf_session.py"]


@pytest.mark.parametrize("is_moved", [False, True])
def test_the_server_gets_its_session_with_or_without_the_bare_import(is_moved: bool) -> None:
    """Where the quick import fails, TensorFlow is imported whole, and a line of the log says so."""
    program = (
        "import logging, sys\n"
        "class Moved:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path, target=None):\n"
        "        if name == 'tensorflow.python.client.session':\n"
        "            if not hasattr(sys.modules['tensorflow'], '__file__'): raise ImportError(name)\n"
        f"sys.meta_path[:0] = [Moved] if {is_moved} else []\n"
        "logging.basicConfig(stream=sys.stderr)\n"
        "from serving.runtime import tensorflow_import\n"
        "print(tensorflow_import.prepare())\n"
        "from serving.runtime.tf_session import Session\n"
        "print(hasattr(sys.modules['tensorflow'], 'keras'))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert run.stdout.split() == [str(not is_moved), str(is_moved)], run.stderr
    assert ("TensorFlow is imported whole" in run.stderr) is is_moved


def test_what_takes_long_in_tensorflow_is_left_to_the_background(tiny_model: TinyModel, tmp_path: Path) -> None:
    """A load optimises and runs no graph in its own thread, which has the priority of those that answer requests."""
    path = tiny_model(tmp_path, 1)
    long = {"TF_SessionMakeCallable", "TF_SessionRunCallable"}
    assert long <= _called_here(path, at_once)
    background = Background(1, NICENESS)
    try:
        assert long.isdisjoint(_called_here(path, background))
    finally:
        background.close()


def _called_here(saved_model: Path, native: Native) -> set[str]:
    """The C functions that this thread calls while it loads and prepares a SavedModel."""
    called: set[str] = set()

    def note(frame: FrameType, event: str, function: object) -> None:
        if event == "c_call":
            called.add(getattr(function, "__name__", ""))

    sys.setprofile(note)
    try:
        servable = load("tiny", 1, saved_model, LoadOptions(), native)
        servable.prepare({"serving_default"})
    finally:
        sys.setprofile(None)
    servable.close()
    return called
