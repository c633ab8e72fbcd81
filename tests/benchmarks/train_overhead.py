"""How much longer does `hotswap train iris` take than a bare script that trains and exports the same model?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[2]
LIMIT = 2.5


def main() -> None:
    """Run both in turn, from no state and from the state that a training left, and print the ratios."""
    with tempfile.TemporaryDirectory(prefix="hotswap-bench-") as directory:
        run_bare(Path(directory))  # fills the page cache
        bare = run_bare(Path(directory))
        print(f"bare script                 {bare:6.1f} s")
        for state in ("no state yet", "second training"):
            ours = run_hotswap(Path(directory))
            print(f"hotswap train iris, {state:<15} {ours:6.1f} s   {ours / bare:.2f} times (at most {LIMIT})")


def run_bare(directory: Path) -> float:
    script = str(Path(__file__).with_name("bare_training.py"))
    return _seconds([sys.executable, script, str(directory / "bare")], directory)


def run_hotswap(directory: Path) -> float:
    return _seconds([sys.executable, "-m", "flows.cli", "train", "iris"], directory)


def _seconds(command: list[str], directory: Path) -> float:
    unset = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {
        "HOTSWAP_HOME": str(directory / "home"),
        "HOTSWAP_MODELS_REPO": str(directory / "models_repo"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    started = time.perf_counter()
    subprocess.run(command, check=True, cwd=PROJECT, env=environment, capture_output=True, timeout=300)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
