"""
Verification of a published version: it must become available at every server and answer its golden rows.

It is asked by number, over REST and gRPC, so that this works before any label points to it. If no server runs, one of
our own is started for it.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack

from flows.endpoints.own_server import own_server
from flows.endpoints.servers import Endpoints
from flows.promotion.deployment import Deployment

log = logging.getLogger(__name__)


def verify(deployment: Deployment, version: int) -> str:
    """
    Wait until `version` is available, and compare its answers with those that publish kept.

    Returns:
        The names of the servers that answered.

    Raises:
        HotswapError: It did not become available in time, or gave other answers.
    """
    settings, model, repository = deployment.settings, deployment.model, deployment.repository
    started = time.perf_counter()
    with ExitStack() as stack:
        servers = stack.enter_context(deployment.servers.running())
        if servers is not None:
            servers.each(lambda server: server.reload(repository))
        else:
            log.info("no server runs at %s: checking on one of our own model=%s", settings.rest_url, model)
            if settings.fleet:
                log.warning("HOTSWAP_SERVING_ENDPOINTS names no host: none is waited for version=%d", version)
            servers = Endpoints([stack.enter_context(own_server(settings, repository, model, version))])
        servers.each(lambda server: server.wait_available(model, version))
        seconds = time.perf_counter() - started
        stamp = deployment.stamp(version)
        servers.each(lambda server: server.check_answers(model, version, stamp))
        name = servers.name
    log.info("version verified model=%s version=%d server=%s seconds=%.3f", model, version, name, seconds)
    return name
