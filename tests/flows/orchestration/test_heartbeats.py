"""A run of ours does not wait for a thread that tells Prefect that it lives."""

from __future__ import annotations

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, get_current_settings, temporary_settings

from flows.orchestration.prefect_access import without_heartbeats


def test_a_run_sends_none_unless_a_setting_asks_for_them() -> None:
    with without_heartbeats():
        assert get_current_settings().flows.heartbeat_frequency is None
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: 60}), without_heartbeats():
        assert get_current_settings().flows.heartbeat_frequency == 60
