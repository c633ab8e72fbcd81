"""
Which version answers requests with neither version nor label?

The one with label ``stable``, at a server that is started so; at any other, as at TensorFlow Serving itself, the
highest. Where these are two versions, clients that name none get one that is a canary, or that was rolled back from.
Commands that bring this about say so.
"""

from __future__ import annotations

import logging

from flows.endpoints.servers import running_server
from flows.promotion import labelling
from flows.promotion.labelling import STABLE
from flows.settings import Settings
from serving.protocol.errors import HotswapError
from serving.repository.store import Repository

log = logging.getLogger(__name__)


def warn_unless_stable(settings: Settings, model: str) -> None:
    """Name the servers at which such requests go to another version than the stable one; never fails."""
    try:
        repository = Repository(settings.models_repo)
        highest, stable = max(repository.versions(model), default=None), labelling.read(repository, model).get(STABLE)
        if stable in (None, highest):
            return
        servers = _taking_the_highest(settings)
    except HotswapError as exc:
        log.warning("not known which version answers requests without a label model=%s error=%s", model, exc)
        return
    if servers:
        log.warning(
            "requests for %s with neither version nor label get version %d, the highest, and not %d, the stable one, "
            "at %s: let clients ask for label %s, or give hotswap's own server --default_version_label=%s",
            model,
            highest,
            stable,
            ", ".join(servers),
            STABLE,
            STABLE,
        )


def _taking_the_highest(settings: Settings) -> list[str]:
    with running_server(settings) as servers:
        if servers is None:
            return []
        labels = servers.each(lambda server: server.default_label())
        return [server.name for server, label in zip(servers, labels, strict=True) if label != STABLE]
