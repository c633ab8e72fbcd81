"""
Imports TensorFlow's session without all of TensorFlow.

``import tensorflow`` brings Keras, the data pipeline and the distribution strategies; a server needs the session. With
a bare module named ``tensorflow`` in place, whose ``__path__`` is the package's folder, the submodules that a server
needs import in less than half the time. Only a process that does nothing but serve may do this: `prepare` is called by
the command line alone. Where it does not work, TensorFlow is imported as usual.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import platform
import sys
import types

log = logging.getLogger(__name__)


def set_environment() -> None:
    """
    Set what TensorFlow reads when it is imported; what the user has set stays.

    By default oneDNN takes part on processors with AVX-512 alone. It decides which operations are run as one, and so
    the last digits of an answer, what infinities become, and which node an error names. A model must answer the same
    on every x86-64 processor. Its memory comes from the system: with an allocator of its own, a run that asks for more
    than there is would hold up all others for ten seconds.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if platform.machine() in ("x86_64", "AMD64"):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")


def prepare() -> bool:
    """Import what a server needs of TensorFlow, quickly; False if all of it is there or had to be imported."""
    if "tensorflow" in sys.modules:
        return False
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        return False
    bare = types.ModuleType("tensorflow", "A stand-in that only finds submodules; see `serving.runtime`.")
    bare.__path__ = list(spec.submodule_search_locations)
    bare.__spec__ = spec
    sys.modules["tensorflow"] = bare
    try:
        importlib.import_module("serving.runtime.tf_session")
    except Exception as exc:  # private modules may change in any way
        log.warning("TensorFlow is imported whole: %s", exc)
        del sys.modules["tensorflow"]
        importlib.import_module("tensorflow")
        return False
    return True
