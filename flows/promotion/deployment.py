"""
A deployment: one model with everything that belongs to it.

It is built once at the edge (a command, a flow, a turn of the reconciler) and handed to the verbs of this package. It
reads and writes nothing by being built; MLflow, which takes seconds to import, is opened by its first use.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING

from flows.endpoints.servers import Servers
from flows.journal import Journal
from flows.promotion.announcing import announce
from flows.promotion.labels import STABLE, Labels
from flows.registry.identity import check_registry
from flows.settings import Settings
from serving.protocol.errors import InvalidRequest, VersionNotFound
from serving.repository.signatures import check_key, sign
from serving.repository.stamp import Stamp
from serving.repository.store import Repository

if TYPE_CHECKING:
    from flows.registry.mlflow_registry import Registry


class Deployment:
    """One model: its settings, repository, journal, labels, servers and registry."""

    def __init__(self, settings: Settings, model: str) -> None:
        self.settings = settings
        self.model = model
        self.repository = Repository(settings.models_repo, self.announce if settings.fleet else None)
        self.journal = Journal(settings.models_repo, model)
        self.labels = Labels(self.repository, model)
        self.servers = Servers(settings, self.repository)

    @cached_property
    def registry(self) -> Registry:
        """MLflow; see `open_registry` for the errors of the first use."""
        return self.open_registry()

    def open_registry(self, may_be_unknown: bool = False) -> Registry:
        """
        Open MLflow, as the settings name it.

        Args:
            may_be_unknown: Whether MLflow may have lost a model that was registered in it.

        Raises:
            RegistryError: It cannot be used, or is not the one that the published versions were registered in.
        """
        check_registry(self.repository, self.model, self.journal.read(), may_be_unknown)
        from flows.registry.mlflow_registry import Registry  # MLflow takes seconds to import

        registry = Registry(self.settings.home / "artifacts")
        registry.check()
        return registry

    def announce(self) -> None:
        """Tell the hosts of a fleet what is published and labelled now."""
        announce(self)

    def lock(self) -> AbstractContextManager[None]:
        """Keep every other process from changing the model."""
        return self.repository.lock(self.model)

    def check_keys(self) -> None:
        """
        Raises:
            InvalidRequest: What would be published could not be signed, or would not be served.
        """
        own, trusted = self.settings.signing_key_file, self.settings.trusted_keys_file
        if own is not None:
            sign(own, self.model, 0, "")
        if trusted is not None and own is None:
            raise InvalidRequest(
                "Only signed versions are served (HOTSWAP_TRUSTED_KEYS_FILE), and there is no key to sign one with: "
                "set HOTSWAP_SIGNING_KEY_FILE"
            )
        if trusted is not None and own is not None:
            check_key(own, trusted)

    @property
    def versions(self) -> list[int]:
        """The published versions, lowest first."""
        return self.repository.versions(self.model)

    def stamp(self, version: int) -> Stamp:
        """What publish has kept with a version."""
        return self.repository.stamp(self.model, version)

    @property
    def champion(self) -> int | None:
        """
        The version that label ``stable`` points to.

        If that is gone, the highest published one without any other label, as a canary is not live; None without any.
        """
        versions, labels = self.versions, self.labels.read()
        stable = labels.pop(STABLE, None)
        return stable if stable in versions else max(set(versions) - set(labels.values()), default=None)

    def highest_version_seen(self) -> int:
        """The highest version number that disk, labels or journal know of."""
        on_disk = self.repository.highest_version_seen(self.model)
        return max(on_disk, self.journal.highest_version(), *self.labels.read().values(), 0)

    def check_published(self, version: int) -> None:
        """
        Raises:
            VersionNotFound: It is not published; the message lists those that are.
        """
        if version in (versions := self.versions):
            return
        published = ", ".join(map(str, versions)) or "none"
        is_retired = version in self.repository.retired(self.model)
        hint = f"; put it back with `hotswap restore {self.model} {version}`" if is_retired else ""
        raise VersionNotFound(f"Version {version} of {self.model!r} is not published; published are: {published}{hint}")
