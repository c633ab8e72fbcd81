"""
How does a version go live, and how does it leave again?

Publish, wait until the server has it, ask it the golden rows by number over REST and gRPC, move the label and the
registry's alias; and when any of this fails, put everything back. Without a running server a published version is
checked on a server of our own, and labels wait in ``models.config`` for the next start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flows.endpoints.own_server import own_server
from flows.endpoints.preflight import ask_first
from flows.endpoints.servers import Endpoints, on_running_servers, running_server
from flows.journal import Entry, Journal
from flows.promotion import history, labelling, removal
from flows.promotion.bake import watch
from flows.promotion.labelling import CANARY, STABLE, Change, alias_of, attempt, validate_label
from flows.promotion.unlabelled import warn_unless_stable
from flows.registry.identity import check_registry
from flows.settings import Settings
from serving.protocol.errors import (
    FailedPrecondition,
    HotswapError,
    InvalidRequest,
    VersionNotFound,
)
from serving.repository.store import Repository

if TYPE_CHECKING:
    from flows.registry.mlflow_registry import Registry

log = logging.getLogger(__name__)

ROLLING_BACK = "rolling back"
"""what the journal says before the label of a rollback moves, so that one that is killed then can be finished"""
PROMOTING = "promoting"
"""the same for the promotion of a version that is published already"""
NOT_PROMOTED = "not promoted"
"""how such a promotion ends when its label could not be moved"""


_FINISHED = "an interrupted promotion was finished"


class PromotionUndone(HotswapError):
    """The new version did not prove itself and was taken out again."""

    exit_code = 5


class Protected(FailedPrecondition):
    """This version is in use: it is retired only with a reason."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Who answered for a version, and how many seconds after the question started it was available."""

    server: str
    seconds: float


def open_registry(settings: Settings, model: str, may_be_unknown: bool = False) -> Registry:
    """
    MLflow, as the settings name it.

    Args:
        settings: Where it keeps its files.
        model: What is going to be changed in it.
        may_be_unknown: Whether it is well when MLflow does not know the model, although it was registered.

    Raises:
        RegistryError: It cannot be used, or is another one than what is published was registered in.
    """
    check_registry(settings, model, may_be_unknown)
    from flows.registry.mlflow_registry import Registry  # MLflow takes seconds to import

    registry = Registry(settings.home / "artifacts")
    registry.check()
    return registry


def golden_rows(inputs: NDArray[np.float32], outputs: NDArray[np.float32]) -> dict[str, Any]:
    """Rows [rows, features] and the answers to them [rows, classes], as publish keeps them with a version."""
    return {"inputs": inputs.tolist(), "outputs": outputs.tolist()}


def highest_version_seen(settings: Settings, model: str) -> int:
    """The highest version number that disk, labels or journal know of."""
    repository = Repository(settings.models_repo)
    labelled = labelling.read(repository, model).values()
    return max(
        repository.highest_version_seen(model), Journal(settings.models_repo, model).highest_version(), *labelled, 0
    )


def champion(settings: Settings, model: str) -> int | None:
    """
    The version that label ``stable`` points to.

    Where that is gone, the highest published one that carries no other label: a canary is not live. None without any.
    """
    repository = Repository(settings.models_repo)
    versions, labels = repository.versions(model), labelling.read(repository, model)
    stable = labels.pop(STABLE, None)
    return stable if stable in versions else max(set(versions) - set(labels.values()), default=None)


def publish(settings: Settings, model: str, version: int, source: Path, stamp: Mapping[str, Any]) -> Path:
    """
    Make `source` visible as a version that no label points to yet, and make a running server know the model.

    Args:
        settings: Where the repository and the server are.
        model: The model's name; its lock is held.
        version: A number never used before.
        source: A SavedModel.
        stamp: What to keep with it: ``digest``, ``run_id``, ``metrics``, ``golden`` …
    """
    repository = Repository(settings.models_repo)
    staged = repository.stage(model, version, source, stamp)
    Journal(settings.models_repo, model).append(
        "publish", version=version, run_id=stamp.get("run_id"), digest=stamp.get("digest")
    )
    path = repository.publish(model, version, staged)
    labelling.write(repository, model, labelling.read(repository, model))
    return path


def verify(settings: Settings, model: str, version: int) -> Verified:
    """
    Wait until `version` is available and ask it its golden rows over REST and gRPC.

    Raises:
        HotswapError: It did not become available in time, or gave other answers.
    """
    repository = Repository(settings.models_repo)
    started = time.perf_counter()
    with ExitStack() as stack:
        servers = stack.enter_context(running_server(settings))
        if servers is not None:
            servers.each(lambda server: server.reload(repository))
        else:
            log.info("no server runs at %s: checking on one of our own model=%s", settings.rest_url, model)
            servers = Endpoints([stack.enter_context(own_server(settings, repository, model, version))])
        servers.each(lambda server: server.wait_available(model, version))
        seconds = time.perf_counter() - started
        stamp = repository.stamp(model, version)
        servers.each(lambda server: server.check_answers(model, version, stamp))
        name = servers.name
    log.info("version verified model=%s version=%d server=%s seconds=%.3f", model, version, name, seconds)
    return Verified(name, seconds)


def promote(
    settings: Settings,
    registry: Registry,
    model: str,
    version: int,
    run_id: str,
    digest: str,
    reason: str | None = None,
    label: str = STABLE,
) -> Change:
    """Point `label`, and the registry's alias with it, to a verified version; the model's lock is held."""
    change = labelling.move(settings, model, label, version)
    _follow_labels(registry, model, version, (label,))
    Journal(settings.models_repo, model).append(
        "promote", version=version, previous=change.previous, label=label, run_id=run_id, digest=digest, why=reason
    )
    return replace(change, action="promote")


def promote_published(
    settings: Settings, registry: Registry, model: str, version: int, run_id: str, reason: str | None = None
) -> Change:
    """
    Make a published and verified version the stable one; the model's lock is held.

    It is no canary any more, so that label goes.
    """
    repository, journal = Repository(settings.models_repo), Journal(settings.models_repo, model)
    digest = repository.stamp(model, version).get("digest")
    with _labels_restored_on_failure(settings, registry, model, (STABLE, CANARY)):
        journal.append(PROMOTING, version=version, previous=labelling.read(repository, model).get(STABLE))
        change = labelling.move(settings, model, STABLE, version, without=CANARY)
        _follow_promotion(registry, model, version)
        facts = {"previous": change.previous, "run_id": run_id, "digest": digest, "why": reason}
        journal.append("promote", version=version, label=STABLE, unlabelled=[CANARY], **facts)
    return replace(change, action="promote")


def promotable(settings: Settings, model: str, version: int) -> Path:
    """
    The files of a published version that can be made the stable one.

    Raises:
        VersionNotFound: It is not published.
        InvalidRequest: It is the stable one.
        IncompleteSavedModel: Its files are no longer those that were published.
    """
    repository = Repository(settings.models_repo)
    _published(repository, model, version)
    if labelling.read(repository, model).get(STABLE) == version:
        raise InvalidRequest(f"Version {version} of {model!r} is the stable one already")
    repository.check_files(model, version)
    return repository.path(model, version)


@contextmanager
def kept_on_failure(settings: Settings, model: str, version: int, run_id: str) -> Iterator[None]:
    """
    Record why a published version was not promoted when the block fails; it stays published.

    Raises:
        PromotionUndone: The block failed.
    """
    try:
        yield
    except HotswapError as exc:
        facts = {"version": version, "run_id": run_id, "why": str(exc)}
        attempt("journal", partial(Journal(settings.models_repo, model).append, NOT_PROMOTED, **facts))
        raise PromotionUndone(f"Version {version} of {model!r} is not made stable, and stays as it was: {exc}") from exc


def _follow_promotion(registry: Registry, model: str, version: int) -> None:
    """Tell the registry that a published version is stable, and no canary any more."""
    _set_alias(registry, model, alias_of(STABLE), version)
    if registry.aliases(model).get(alias_of(CANARY)) == version:
        registry.set_alias(model, alias_of(CANARY), None)
    if version in registry.versions(model):
        registry.tag_version(model, version, {"promotion": _tag(STABLE)})


def _tag(label: str) -> str:
    return "promoted" if label == STABLE else f"labelled {label}"


@contextmanager
def undone_on_failure(settings: Settings, registry: Registry, model: str, version: int) -> Iterator[None]:
    """
    Put labels, alias and directory back when the block fails; the model's lock is held.

    Raises:
        PromotionUndone: The block failed after the version was visible; the message says why.
    """
    repository = Repository(settings.models_repo)
    labels, aliases = labelling.read(repository, model), registry.aliases(model)
    try:
        yield
    except BaseException as exc:
        published = version in repository.versions(model)
        reason = str(exc) or type(exc).__name__
        _undo(settings, registry, model, version, labels, aliases, reason)
        if published and isinstance(exc, Exception):
            raise PromotionUndone(f"Version {version} of {model!r} was taken out again: {reason}") from exc
        raise


def unfinished(entries: Sequence[Entry], labels: Mapping[str, int]) -> Entry | None:
    """
    The entry that began what was interrupted, and that none followed.

    Of a rollback, and of the promotion of a published version, nothing has changed before the label has moved.
    """
    last = entries[-1] if entries else None
    if last is None or last.version is None:
        return None
    moved = last.action in (ROLLING_BACK, PROMOTING) and last.version == labels.get(STABLE)
    return last if last.action == "publish" or moved else None


def tidy(settings: Settings, registry: Registry, model: str) -> None:
    """
    Finish what a killed promotion, rollback or removal left.

    Of a promotion, a labelled version was verified and stays, any other goes; a rollback or a removal is finished.
    """
    if removal.finish(settings, registry, model):
        return
    if _finish_rollback(settings, model) is not None:
        return
    journal = Journal(settings.models_repo, model)
    labels = labelling.read(Repository(settings.models_repo), model)
    begun = unfinished(journal.read(), labels)
    if begun is None or begun.version is None:
        return
    carried = sorted(label for label, at in labels.items() if at == begun.version)
    if begun.action == PROMOTING:
        labelling.move(settings, model, STABLE, begun.version, without=CANARY)
        _follow_promotion(registry, model, begun.version)
        journal.append("promote", version=begun.version, label=STABLE, unlabelled=[CANARY], why=_FINISHED)
    elif carried:
        _follow_labels(registry, model, begun.version, carried)
        for label in carried:
            journal.append("promote", version=begun.version, label=label, why=_FINISHED)
    else:
        aliases = registry.aliases(model)
        _undo(settings, registry, model, begun.version, labels, aliases, "its promotion was interrupted")


def _follow_labels(registry: Registry, model: str, version: int, labels: Sequence[str]) -> None:
    """Tell the registry which labels a version carries."""
    for label in labels:
        registry.set_alias(model, alias_of(label), version)
        registry.tag_version(model, version, {"promotion": _tag(label)})
    registry.mark_present(model)


def set_label(settings: Settings, model: str, label: str, version: int, reason: str | None = None) -> Change:
    """
    Point `label`, and the registry's alias with it, to a published version.

    Raises:
        VersionNotFound: It is not published.
        LabelNotAssignable: The running server does not have it available.
    """
    validate_label(label)
    repository = Repository(settings.models_repo)
    with repository.lock(model):
        _published(repository, model, version)
        ask_first(settings, model)
        registry = open_registry(settings, model)
        with _labels_restored_on_failure(settings, registry, model, (label,)):
            change = labelling.move(settings, model, label, version)
            _set_alias(registry, model, alias_of(label), version)
            registry.mark_present(model)
            _journal(settings, change, reason)
    warn_unless_stable(settings, model)
    return change


def remove_label(
    settings: Settings, model: str, label: str, dry_run: bool = False, reason: str | None = None
) -> Change:
    """
    Take `label`, and the registry's alias with it, away; with `dry_run` only say from which version.

    Raises:
        InvalidRequest: There is no such label.
        Protected: It is ``stable``, which says what is live.
    """
    validate_label(label)
    if label == STABLE:
        raise Protected(f"Label {label!r} says what is live: move it with `hotswap label {model} {label} VERSION`")
    repository = Repository(settings.models_repo)
    with repository.lock(model):
        before = labelling.read(repository, model)
        if label not in before:
            raise InvalidRequest(f"{model!r} has no label {label!r}; it has: {', '.join(sorted(before)) or 'none'}")
        if dry_run:
            return Change("unlabel", model, before[label], label, before[label], dry_run=True)
        ask_first(settings, model)
        registry = open_registry(settings, model)
        with _labels_restored_on_failure(settings, registry, model, (label,)):
            labelling.write(repository, model, {name: at for name, at in before.items() if name != label})
            server = on_running_servers(settings, lambda server: server.reload(repository))
            if alias_of(label) in registry.aliases(model):
                registry.set_alias(model, alias_of(label), None)
            change = Change("unlabel", model, before[label], label, before[label], server=server)
            _journal(settings, change, reason)
    return change


@contextmanager
def _labels_restored_on_failure(
    settings: Settings, registry: Registry, model: str, moving: Sequence[str]
) -> Iterator[None]:
    """Put all labels, and the aliases of those `moving`, back when the block fails; the model's lock is held."""
    labels, aliases = labelling.read(Repository(settings.models_repo), model), registry.aliases(model)
    try:
        yield
    except BaseException:
        if labelling.read(Repository(settings.models_repo), model) != labels:
            attempt("restore labels", lambda: labelling.restore(settings, model, labels))
        for alias in map(alias_of, moving):
            attempt("restore alias", partial(_put_alias_back, registry, model, alias, aliases.get(alias)))
        raise


def _put_alias_back(registry: Registry, model: str, alias: str, version: int | None) -> None:
    if registry.aliases(model).get(alias) != version:
        registry.set_alias(model, alias, version)


def bake(
    settings: Settings,
    registry: Registry,
    model: str,
    version: int,
    previous: int | None,
    seconds: float,
    label: str = STABLE,
) -> None:
    """
    Watch a promoted version for `seconds`, and undo its promotion when it is worse than what was or is live.

    Args:
        settings: Where the repository and the server are.
        registry: Where its alias is.
        model: The model's name.
        version: What is watched.
        previous: Where its label pointed before, and goes back to.
        seconds: For how long.
        label: The one that it got; one with another label than ``stable`` is held against the stable version.

    The model's lock is free meanwhile, so that it can be rolled back by hand.

    Raises:
        PromotionUndone: It was worse; the message says how.
    """
    beside = previous if label == STABLE else champion(settings, model)
    log.info("watching model=%s version=%d beside=%s seconds=%g", model, version, beside, seconds)
    reason = watch(settings, model, version, beside, seconds)
    if not reason:
        log.info("version baked model=%s version=%d", model, version)
        return
    repository = Repository(settings.models_repo)
    with repository.lock(model):
        labels = labelling.read(repository, model)
        if labels.get(label) != version:
            log.warning("no longer live, so nothing is undone model=%s version=%d reason=%s", model, version, reason)
            return
        labels = {other: at for other, at in labels.items() if at != version}
        aliases = {}
        if previous in repository.versions(model):
            labels[label] = aliases[alias_of(label)] = previous
            if label == STABLE:
                attempt("announce", lambda: _announce_rollback(settings, model, previous, version, [version]))
        _undo(settings, registry, model, version, labels, aliases, reason)
    raise PromotionUndone(f"Version {version} of {model!r} was taken out again: {reason}")


def rollback(
    settings: Settings, model: str, to: int | None = None, dry_run: bool = False, reason: str | None = None
) -> Change:
    """
    Point label ``stable`` and alias ``champion`` to an earlier version and retire the later ones.

    The earlier one, without `to` the last that was stable, must load and answer first; a retired one is restored. All
    later ones go, because TensorFlow Serving answers requests without a label by the highest version; but what is above
    the stable version and carries another label, as a canary does, stays for who asks for it. With `dry_run` nothing
    changes. A rollback that was killed after its label had moved is finished first; when that is where `to` points, it
    is all that is done.

    Raises:
        VersionNotFound: There is no earlier version, or `to` is neither published nor retired.
        Protected: A later version carries another label.
        PromotionUndone: The earlier version does not load or answer; nothing has changed.
    """
    repository = Repository(settings.models_repo)
    with repository.lock(model):
        if not dry_run:
            ask_first(settings)
        if not dry_run and (finished := _finish_rollback(settings, model)) and to in (None, finished.version):
            return finished
        current = _current(settings, model)
        target = _target(settings, model, current, to)
        labels = labelling.read(repository, model)
        canaries = {version for label, version in labels.items() if label != STABLE and version > current}
        later = [version for version in repository.versions(model) if version > target and version not in canaries]
        for label, version in labels.items():
            if label != STABLE and version in later:
                raise Protected(
                    f"Version {version} of {model!r} carries label {label!r}: "
                    f"move it first with `hotswap label {model} {label} {target}`"
                )
        if dry_run:
            return Change("rollback", model, target, STABLE, current, tuple(later), dry_run=True)
        with _restored(repository, model, target):
            repository.check_files(model, target)
            verify(settings, model, target)
            _announce_rollback(settings, model, target, current, later, reason)
            change = labelling.move(settings, model, STABLE, target)
        change = replace(change, action="rollback", previous=current, retired=tuple(later))
        _retire_newer(settings, change, reason)
    warn_unless_stable(settings, model)
    return change


def _announce_rollback(
    settings: Settings, model: str, target: int, current: int, later: Sequence[int], reason: str | None = None
) -> None:
    facts = {"version": target, "previous": current, "retired": list(later), "why": reason}
    Journal(settings.models_repo, model).append(ROLLING_BACK, **facts)


def _finish_rollback(settings: Settings, model: str) -> Change | None:
    """Finish a rollback that was killed after its label had moved; None where there is none."""
    entries = Journal(settings.models_repo, model).read()
    begun = unfinished(entries, labelling.read(Repository(settings.models_repo), model))
    if begun is None or begun.version is None or begun.action != ROLLING_BACK:
        return None
    # The server may not have been told of the label yet.
    change = labelling.move(settings, model, STABLE, begun.version)
    facts = begun.facts
    change = replace(change, action="rollback", previous=facts["previous"], retired=tuple(facts["retired"]))
    _retire_newer(settings, change, facts.get("why"))
    return change


def _retire_newer(settings: Settings, change: Change, reason: str | None) -> None:
    """The rest of a rollback whose label has moved."""
    repository, model = Repository(settings.models_repo), change.model
    for version in sorted({*change.retired}.intersection(repository.versions(model))):
        repository.retire(model, version)
    on_running_servers(settings, lambda server: server.wait_gone(model, list(change.retired)))
    _journal(settings, change, reason)
    _sync_registry(settings, model, change)


@contextmanager
def _restored(repository: Repository, model: str, version: int) -> Iterator[None]:
    """A version that was retired is published for the block, and stays so when the block succeeds."""
    was_retired = version in repository.retired(model)
    if was_retired:
        repository.restore(model, version)
    try:
        yield
    except BaseException as exc:
        if was_retired:
            repository.retire(model, version)
        if isinstance(exc, HotswapError):
            raise PromotionUndone(f"Version {version} of {model!r} does not work, nothing was changed: {exc}") from exc
        raise


def retire(
    settings: Settings,
    model: str,
    version: int,
    force: str | None = None,
    dry_run: bool = False,
    reason: str | None = None,
) -> Change:
    """
    Take a version out of the polled directory.

    Args:
        settings: Where the repository and the server are.
        model: The model's name.
        version: A published version.
        force: Why to retire it although it is the last one or carries a label, which is then taken away.
        dry_run: Only say what would change.
        reason: Why, where `force` does not say it.

    Raises:
        Protected: It is the last one or carries a label, and `force` is not given.
    """
    repository = Repository(settings.models_repo)
    with repository.lock(model):
        _published(repository, model, version)
        before = labelling.read(repository, model)
        carried = tuple(label for label, labelled in before.items() if labelled == version)
        rest = [other for other in repository.versions(model) if other != version]
        if not force and (carried or not rest):
            use = f"carries label {', '.join(map(repr, carried))}" if carried else "is the last one published"
            raise Protected(f"Version {version} of {model!r} {use}: to retire it all the same, add --force REASON")
        if dry_run:
            return Change("retire", model, version, retired=(version,), dry_run=True)
        ask_first(settings)
        if carried:
            registry = open_registry(settings, model, may_be_unknown=True)
            labelling.restore(settings, model, {label: at for label, at in before.items() if label not in carried})
            for alias in registry.aliases(model).keys() & {alias_of(label) for label in carried}:
                registry.set_alias(model, alias, None)
        repository.retire(model, version)
        server = on_running_servers(settings, lambda server: server.wait_gone(model, [version]))
        change = Change("retire", model, version, retired=(version,), server=server)
        _journal(settings, change, force or reason)
    return change


def restore(settings: Settings, model: str, version: int, reason: str | None = None) -> Change:
    """
    Put a retired version, or one of a removed model, back where the server sees it; no label moves.

    Raises:
        HotswapError: The running server could not bring it up; it is retired again.
    """
    repository = Repository(settings.models_repo)
    with repository.lock(model):
        ask_first(settings, model)
        repository.restore(model, version)
        try:
            if not labelling.is_configured(repository, model):
                labelling.restore(settings, model, {})
            server = on_running_servers(settings, lambda server: server.check_back(repository, model, version))
        except BaseException:
            repository.retire(model, version)
            raise
        change = Change("restore", model, version, server=server)
        _journal(settings, change, reason)
    warn_unless_stable(settings, model)
    return change


def _undo(
    settings: Settings,
    registry: Registry,
    model: str,
    version: int,
    labels: Mapping[str, int],
    aliases: Mapping[str, int],
    reason: str,
) -> None:
    repository = Repository(settings.models_repo)
    # Each step is tried, whatever became of the others: what can be put back is put back.
    if version in repository.versions(model):
        attempt("restore labels", lambda: labelling.restore(settings, model, labels))
        attempt("retire", lambda: repository.retire(model, version))
        attempt("wait", lambda: on_running_servers(settings, lambda server: server.wait_gone(model, [version])))
    for alias, at in (attempt("read aliases", lambda: registry.aliases(model)) or {}).items():
        if at == version:
            before = aliases.get(alias)
            attempt("restore alias", partial(registry.set_alias, model, alias, None if before == version else before))
    tags = {"promotion": "undone", "promotion_reason": reason[:500]}
    attempt("tag", lambda: registry.tag_version(model, version, tags))
    attempt("journal", lambda: Journal(settings.models_repo, model).append("undo", version=version, why=reason))
    log.warning("promotion undone model=%s version=%d reason=%s", model, version, reason)


def _published(repository: Repository, model: str, version: int) -> None:
    if version in repository.versions(model):
        return
    published = ", ".join(map(str, repository.versions(model))) or "none"
    hint = f"; put it back with `hotswap restore {model} {version}`" if version in repository.retired(model) else ""
    raise VersionNotFound(f"Version {version} of {model!r} is not published; published are: {published}{hint}")


def _current(settings: Settings, model: str) -> int:
    repository = Repository(settings.models_repo)
    versions = repository.versions(model)
    if not versions:
        raise VersionNotFound(f"No version of {model!r} is published in {repository.root}")
    return labelling.read(repository, model).get(STABLE) or champion(settings, model) or versions[-1]


def _target(settings: Settings, model: str, current: int, to: int | None) -> int:
    repository = Repository(settings.models_repo)
    if to is None:
        return _version_before(settings, model, current)
    if to not in repository.retired(model):
        _published(repository, model, to)
    if to >= current:
        raise VersionNotFound(f"Version {to} of {model!r} is not earlier than {current}, the one that is live")
    return to


def _version_before(settings: Settings, model: str, current: int) -> int:
    """The newest earlier version that was stable; where none was, the newest."""
    earlier = [version for version in Repository(settings.models_repo).versions(model) if version < current]
    if not earlier:
        raise VersionNotFound(
            f"{model!r} has no version before {current} to roll back to; "
            f"`hotswap status {model}` shows what can be restored"
        )
    stable_once = history.stable_once(Journal(settings.models_repo, model).read())
    return max(stable_once.intersection(earlier), default=earlier[-1])


def _set_alias(registry: Registry, model: str, alias: str, version: int) -> None:
    if version in registry.versions(model):
        registry.set_alias(model, alias, version)
    else:
        log.warning("alias not set: version is not registered model=%s version=%d alias=%s", model, version, alias)


def _sync_registry(settings: Settings, model: str, change: Change) -> None:
    """Tell the registry of a rollback. The way back must not wait for MLflow, so a failure here is only reported."""
    try:
        registry = open_registry(settings, model)
        _set_alias(registry, model, alias_of(STABLE), change.version)
        for version in set(change.retired).intersection(registry.versions(model)):
            registry.tag_version(model, version, {"promotion": "rolled back"})
    except HotswapError as exc:
        hint = f"hotswap label {model} {STABLE} {change.version}"
        log.warning("rolled back, but the registry does not know yet: repeat `%s` later error=%s", hint, exc)


def _journal(settings: Settings, change: Change, why: str | None = None) -> None:
    stamp = Repository(settings.models_repo).stamp(change.model, change.version)
    Journal(settings.models_repo, change.model).append(
        change.action,
        version=change.version,
        label=change.label,
        previous=change.previous,
        retired=list(change.retired) or None,
        run_id=stamp.get("run_id"),
        digest=stamp.get("digest"),
        why=why,
    )
