"""The pages of the documentation, and what tests look for in them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.ports import stack_ports

PROJECT = Path(__file__).parents[2]
README = PROJECT / "README.md"
DOCS = PROJECT / "docs"
PAGES = [README, PROJECT / "CHANGELOG.md", PROJECT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
VARYING = re.compile(
    r"\S+@\S+"  # who did something
    r"|(?:https?:/|(?<=\s))/\S+"  # addresses and directories
    r"|\b[A-Z][a-z]{2} \d+ \d+:\d+"  # dates
    r"|\b[0-9a-f]{8,}\b"  # ids
    r"|-?\b\d[\d.,]*(?:e-?\d+,?)?%?"
)
"""what differs between two runs of the same command"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, with the output that the page shows below it."""

    text: str
    output: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """The one in its comment, as in ``# exit code 3``."""
        found = re.search(r"# .*exit code (\d+)", self.text)
        return int(found[1]) if found else 0


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[Command]:
    """Every command of the console blocks."""
    for block in blocks(page, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            text, *output = part.splitlines()
            yield Command(text, tuple(line for line in output if line.strip()))


def masked(line: str) -> str:
    """A line of output without what differs between two runs."""
    return " ".join(VARYING.sub("#", line).split())


def missing_lines(shown: tuple[str, ...], printed: str) -> list[str]:
    """What a page shows that was not printed, in this order."""
    rest = iter([masked(line) for line in printed.splitlines()])
    return [line for line in shown if masked(line) not in rest]


def isolated_environment(**variables: str) -> dict[str, str]:
    """The environment of a newcomer, whose `.venv` is this one, with ports that are free."""
    foreign = ("HOTSWAP_", "MLFLOW_", "PREFECT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, **stack_ports(), "PATH": path, **variables}
