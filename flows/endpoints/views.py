"""One model as one server has it: states, labels, and where its versions came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clients.client import Served

NOT_SERVED = "NOT SERVED"


@dataclass(frozen=True, slots=True)
class ModelAtServer:
    """One model, as one server has it."""

    server: str
    states: Mapping[int, str] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    """why a version could not be loaded"""
    labels: Mapping[str, int] | None = None
    """None from TensorFlow Serving itself, which does not report them"""
    elsewhere: Mapping[int, str] = field(default_factory=dict)
    """the directories of versions that are not of the server's repository"""
    base_path: str = ""
    """where it looks for versions, when that is not in its repository either"""
    problem: str = ""
    """why it does not answer"""

    def needs_reload(self, version: int) -> bool:
        """Whether it answers, and has never heard of the version or has unloaded it."""
        is_gone = self.states.get(version) in (None, "END") and version not in self.errors
        return not self.problem and is_gone

    def report(self, version: int) -> str:
        """The rest of a sentence about its state of `version`."""
        return "does not answer" if self.problem else f"has it as {self.states.get(version, 'not known')}"


def state_reported(views: Sequence[ModelAtServer], version: int) -> str:
    """The state that all servers have `version` in, or by how many of them it is served."""
    states = [view.states.get(version, NOT_SERVED) for view in views]
    served = states.count("AVAILABLE")
    if 0 < served < len(states):
        return f"served by {served} of {len(states)}"
    return next((state for state in states if state != "AVAILABLE"), "AVAILABLE" if states else NOT_SERVED)


def labels_of(served: Served | None, model: str) -> dict[str, int] | None:
    """The labels of `model`; None from a server that does not report them."""
    if served is None:
        return None
    return {label: row["version"] for row in served.rows if row["model"] == model for label in row["labels"]}


def elsewhere(served: Served | None) -> dict[str, dict[int, str]]:
    """By model, the loaded versions that came from other directories than this server's repository, and those."""
    found: dict[str, dict[int, str]] = {}
    for row in [] if served is None else served.rows:
        if row.get("in_repository") is False:
            found.setdefault(row["model"], {})[row["version"]] = row["path"]
    return found


def foreign_base_path(served: Served | None, model: str) -> str:
    """Where the server looks for versions of `model`, when that is outside its repository; else empty."""
    rows = [] if served is None else [row for row in served.rows if row["model"] == model]
    return next((row["base_path"] for row in rows if row.get("base_path_in_repository") is False), "")
