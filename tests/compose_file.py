"""``compose.yaml`` as its engine reads it, and its services' commands as processes of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[1]
COMPOSE = PROJECT / "compose.yaml"
FOLDER = PROJECT / "serving" / "compose"
SECRETS = {
    name: f"{name.lower()}-of-a-test"
    for name in re.findall(r"^(\w+)=change", (PROJECT / ".env.example").read_text("utf-8"), re.MULTILINE)
}
_VARIABLE = re.compile(r"\$\{(\w+):\?[^}]*\}")


def services() -> dict[str, dict[str, Any]]:
    """Every service, by name."""
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    return loaded


@dataclass(frozen=True, slots=True)
class Native:
    """Runs commands of services here: what they call other services and places becomes what they are here."""

    places: Mapping[str, str]
    """what stands in ``compose.yaml``, and what stands for it here"""
    directory: Path

    def start(self, service: str) -> subprocess.Popen[bytes]:
        """The command of a service, as a process of its own group."""
        found = services()[service]
        command = [*found.get("entrypoint", []), *found["command"]]
        variables = {name: self._here(value) for name, value in found.get("environment", {}).items()}
        kept = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "LANG": "C.UTF-8"}
        with (self.directory / f"{service}.log").open("wb") as log:
            return subprocess.Popen(
                [self._here(each) for each in command],
                env={**kept, **variables, "HOME": str(self.directory)},
                cwd=self.directory,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, service: str) -> None:
        """The same, to its end, which must be a good one."""
        assert self.start(service).wait(120) == 0, (self.directory / f"{service}.log").read_text("utf-8", "replace")

    def _here(self, text: str) -> str:
        text = _VARIABLE.sub(lambda found: SECRETS.get(found[1], "hotswap"), text)
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text
