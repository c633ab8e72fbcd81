"""
The version that answers requests with neither version nor label.

A server that is started so answers them with the version of label ``stable``; any other, as TensorFlow Serving itself,
with the highest. If these differ, such requests reach a canary, or a version that was rolled back from. The commands
that bring this about say so.
"""

from __future__ import annotations

import logging

from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from serving.protocol.errors import HotswapError

log = logging.getLogger(__name__)


def warn_unless_stable(deployment: Deployment) -> None:
    """Log the servers at which such requests reach another version than the stable one; never fails."""
    try:
        highest, stable = max(deployment.versions, default=None), deployment.labels.read().get(STABLE)
        if stable in (None, highest):
            return
        servers = _answering_with_the_highest(deployment)
    except HotswapError as exc:
        log.warning("not known which version answers requests without a label model=%s error=%s", deployment.model, exc)
        return
    if servers:
        log.warning(
            "requests for %s with neither version nor label get version %d, the highest, and not %d, the stable one, "
            "at %s: let clients ask for label %s, or give hotswap's own server --default_version_label=%s",
            deployment.model,
            highest,
            stable,
            ", ".join(servers),
            STABLE,
            STABLE,
        )


def _answering_with_the_highest(deployment: Deployment) -> list[str]:
    with deployment.servers.running() as servers:
        if servers is None:
            return []
        labels = servers.each(lambda server: server.default_label())
        return [server.name for server, label in zip(servers, labels, strict=True) if label != STABLE]
