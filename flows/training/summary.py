"""What a trained model is made of, in a few facts and as Keras' own table."""

from __future__ import annotations

import math
import platform
from importlib.metadata import version
from typing import Any

_PACKAGES = ("tensorflow", "keras", "scikit-learn", "numpy")


def model_facts(model: Any) -> dict[str, str]:
    """Optimizer, loss, layers and number of weights of a Keras model, and the versions that it was trained with."""
    compiled = model.get_compile_config() or {} if model.compiled else {}
    facts = {
        "optimizer": _name(compiled.get("optimizer")),
        "loss": _name(compiled.get("loss")),
        "layers": " ".join(type(layer).__name__ for layer in model.layers)[:500],
        "weights": str(sum(math.prod(variable.shape) for variable in model.weights)),
        "python": platform.python_version(),
    }
    versions = {f"version_{package}": version(package) for package in _PACKAGES}
    return {name: value for name, value in {**facts, **versions}.items() if value}


def model_summary(model: Any) -> str:
    """The table of layers that Keras prints."""
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line), line_length=100, show_trainable=True)
    return "\n".join(lines) + "\n"


def _name(compiled: Any) -> str:
    """A loss or an optimizer by its name, as Keras writes it into a compile configuration."""
    if isinstance(compiled, dict):
        return str(compiled.get("class_name", ""))
    return "" if compiled is None else str(compiled)
