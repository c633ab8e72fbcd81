"""What the `hotswap up` of a home lets others know."""

from __future__ import annotations

import threading
from pathlib import Path

from flows.machine.instance import keep_services, only_instance, wait_while_starting


def test_who_needs_a_service_waits_until_it_is_ready(tmp_path: Path) -> None:
    """Also before `hotswap up` has told of any; nobody waits for a service that it does not run, or where none runs."""
    assert wait_while_starting(tmp_path, "worker", 0)
    with only_instance(tmp_path, {"addresses": {}}):
        assert not wait_while_starting(tmp_path, "worker", 0)
        for state in ("waits for its next start", "starting"):
            keep_services(tmp_path, [{"name": "worker", "state": state}])
            assert not wait_while_starting(tmp_path, "worker", 0)
        assert wait_while_starting(tmp_path, "mlflow", 0)
        threading.Timer(0.05, keep_services, (tmp_path, [{"name": "worker", "state": "ready"}])).start()
        assert wait_while_starting(tmp_path, "worker", 60)
