"""Whatever is done to a model, in whatever order, the invariants of a promotion hold after each step."""

from __future__ import annotations

import itertools
import shutil
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from clients import GrpcClient, RestClient
from flows.promotion import promotion
from flows.promotion.deployment import Deployment
from flows.promotion.history import replay
from flows.promotion.labelling import set_label
from flows.promotion.labels import alias_of
from flows.promotion.promotion import publish
from flows.promotion.retention import tidy_after_promotion
from flows.promotion.retirement import restore, retire
from flows.promotion.rollback import rollback
from flows.promotion.undo import PromotionUndone
from flows.reconciliation.repair import repair
from serving.protocol.errors import HotswapError
from serving.repository.model_config import ModelEntry
from serving.repository.saved_model_files import check_complete, digest
from serving.repository.version_policy import All
from tests.pipelines import ROWS, Pipeline

_KINDS = st.integers(1, 3)
_PICK = st.integers(0, 9)
_NUMBERS = itertools.count()


class Machine(RuleBasedStateMachine):
    """One model, its registry, its directory and a running server; `agreed` says whether all must agree now."""

    pipeline: Pipeline

    @initialize(kind=_KINDS)
    def begin(self, kind: int) -> None:
        """A new model at each run, on the same server and in the same registry."""
        self.pipeline.begin_anew()
        self.kinds: dict[int, int] = {}
        self.agreed = True
        self.highest = 0
        self.promote(kind)

    @rule(kind=_KINDS)
    def promote(self, kind: int) -> None:
        """A promotion begins by tidying, and a repair comes before it where something was changed by hand."""
        self.reconcile()
        version = self.pipeline.promote(kind)
        assert version > self.highest
        self.highest = version
        self.kinds[version] = kind

    @rule(kind=_KINDS)
    def promote_a_canary(self, kind: int) -> None:
        """What is stable stays so."""
        self.reconcile()
        stable = self.labels().get("stable")
        version = self.pipeline.promote(kind, label="canary")
        assert version > self.highest
        assert (self.labels().get("stable"), self.labels()["canary"]) == (stable, version)
        self.highest = version
        self.kinds[version] = kind

    @rule(pick=_PICK)
    def make_stable(self, pick: int) -> None:
        """A version that becomes stable is no canary any more; any other refusal changes no label."""
        self.reconcile()
        version, before = self.published(pick), self.labels()
        try:
            self.pipeline.make_stable(version)
        except HotswapError:
            assert self.labels() == before
        else:
            assert self.labels()["stable"] == version != self.labels().get("canary")

    @rule(pick=_PICK, point=st.sampled_from(["labels written", "announced"]))
    def be_killed_making_stable(self, pick: int, point: str) -> None:
        """The journal has it, and at most the labels are written."""
        self.reconcile()
        version, labels = self.published(pick), self.labels()
        if version in self.repository.versions(self.model) and labels.get("stable") != version:
            with self.repository.lock(self.model):
                self.pipeline.journal.append(promotion.PROMOTING, version=version, previous=labels.get("stable"))
                if point == "labels written":
                    self.pipeline.deployment.labels.write({**labels, "stable": version})
            self.agreed = False

    @rule(kind=_KINDS, label=st.sampled_from(["stable", "canary"]))
    def promote_what_answers_wrongly(self, kind: int, label: str) -> None:
        self.reconcile()
        before = self.pipeline.live()
        with pytest.raises(PromotionUndone):
            self.pipeline.promote(kind, expected_kind=9, label=label)
        assert self.pipeline.live() == before
        self.highest = max(self.pipeline.registry.versions(self.pipeline.model))

    @rule(kind=_KINDS)
    def be_killed_after_publishing(self, kind: int) -> None:
        self.reconcile()
        registered = self.pipeline.register(kind)
        stamp = self.pipeline.stamp(registered, kind)
        with self.pipeline.repository.lock(self.model):
            publish(self.pipeline.deployment, registered.version, registered.saved_model, stamp)
        self.highest = registered.version
        self.kinds[self.highest] = kind
        self.agreed = False

    @rule(to=st.none() | _PICK)
    def roll_back(self, to: int | None) -> None:
        known = sorted({*self.repository.versions(self.model), *self.repository.retired(self.model)})
        self.attempt(rollback, None if to is None or not known else known[to % len(known)])

    @rule(label=st.sampled_from(["stable", "canary", "blue"]), pick=_PICK)
    def label(self, label: str, pick: int) -> None:
        self.attempt(set_label, label, self.published(pick))

    @rule(pick=_PICK, force=st.sampled_from([None, "for a test"]))
    def retire(self, pick: int, force: str | None) -> None:
        """Invariant 6: neither the last nor a labelled version goes without a reason."""
        self.reconcile()
        version, labels, published = self.published(pick), self.labels(), self.repository.versions(self.model)
        protected = version in labels.values() or published == [version]
        self.attempt(retire, version, force)
        if protected and not force:
            assert version in self.repository.versions(self.model)

    @rule(pick=_PICK)
    def restore(self, pick: int) -> None:
        if retired := self.repository.retired(self.model):
            self.attempt(restore, retired[pick % len(retired)])

    @rule()
    def keep_the_newest(self) -> None:
        few = self.pipeline.settings.model_copy(update={"keep_versions": 2})
        tidy_after_promotion(Deployment(few, self.model))

    @rule(pick=_PICK)
    def remove_by_hand(self, pick: int) -> None:
        if published := self.repository.versions(self.model):
            shutil.rmtree(self.repository.path(self.model, published[pick % len(published)]))
            self.agreed = False

    @rule(alias=st.sampled_from(["champion", "challenger"]), pick=_PICK)
    def move_an_alias_by_hand(self, alias: str, pick: int) -> None:
        versions = self.pipeline.registry.versions(self.model)
        self.pipeline.registry.set_alias(self.model, alias, versions[pick % len(versions)])
        self.agreed = False

    @rule(whose=st.sampled_from(["nothing", "other models", "the same models", "other labels"]), pick=_PICK)
    def be_reloaded_by_others(self, whose: str, pick: int) -> None:
        """Another process makes the server take over what is not ours; ours are unloaded, or served from elsewhere."""
        name = {"nothing": "", "other models": f"other_{self.model}"}.get(whose, self.model)
        base_path = self.repository.base_path(self.model)
        version = self.published(pick)
        if whose != "other labels":
            base_path = self.pipeline.directory / "foreign" / f"{name}{next(_NUMBERS)}"
            self.pipeline.sources(base_path, 9, str(version))
        with GrpcClient(self.pipeline.settings.grpc_target) as client:
            client.reload([ModelEntry(name, str(base_path), All())] if name else [])
            if name and version in {each.version for each in client.status(name) if each.state.name == "AVAILABLE"}:
                client.reload([ModelEntry(name, str(base_path), All(), {"stable": version, "theirs": version})])
        self.agreed = False

    @precondition(lambda self: not self.agreed)
    @rule()
    def reconcile(self) -> None:
        left = repair(self.pipeline.deployment).remaining
        assert not [finding for finding in left if finding.repairable]
        self.agreed = True

    @invariant()
    def published_versions_are_complete(self) -> None:
        """1 and 2: each is a whole SavedModel with the digest that the registry has."""
        for version in self.repository.versions(self.model):
            path = self.repository.path(self.model, version)
            check_complete(path)
            assert digest(path) == self.repository.stamp(self.model, version).digest

    @invariant()
    def numbers_are_remembered(self) -> None:
        """3: what is next is above everything ever seen."""
        registered = self.pipeline.registry.versions(self.model)
        assert max(self.pipeline.deployment.highest_version_seen(), *registered, 0) >= self.highest

    @invariant()
    def the_journal_is_whole(self) -> None:
        """5 and 7: the chain holds, and where nothing was changed by hand it tells what is live."""
        live = replay(self.pipeline.journal.read())
        if self.agreed:
            assert sorted(live.published) == self.repository.versions(self.model)
            assert live.labels == self.labels()

    @invariant()
    def labels_answer(self) -> None:
        """4 and 11: every label is answered by its version, who asks for none gets the stable one."""
        if not self.agreed:
            return
        aliases = self.pipeline.registry.aliases(self.model)
        assert aliases == {alias_of(label): version for label, version in self.labels().items()}
        settings = self.pipeline.settings
        with RestClient(settings.rest_url) as rest, GrpcClient(settings.grpc_target) as grpc:
            for label, version in self.labels().items():
                for client in (rest, grpc):
                    prediction = client.predict(self.model, ROWS, label=label)
                    assert prediction.version == version
                    assert (prediction.outputs["output"] == self.pipeline.answers(self.kinds[version])).all()
            if "stable" in self.labels():
                for client in (rest, grpc):
                    assert client.predict(self.model, ROWS).version == self.labels()["stable"]

    @property
    def model(self) -> str:
        return self.pipeline.model

    @property
    def repository(self) -> Any:
        return self.pipeline.repository

    def labels(self) -> dict[str, int]:
        return self.pipeline.deployment.labels.read()

    def published(self, pick: int) -> int:
        """One of the published versions, or a number that never was."""
        published = self.repository.versions(self.model)
        return published[pick % len(published)] if published else 99

    def attempt(self, action: Any, *arguments: Any) -> None:
        """Do it as a command would, after a repair; a refusal is an answer too."""
        if not self.agreed:
            self.reconcile()
        with suppress(HotswapError):
            action(self.pipeline.deployment, *arguments)


def test_the_invariants_hold_after_every_step(pipeline: Pipeline, soak: bool) -> None:
    """Publish, promote, label, roll back, retire, restore; changes by hand, kills, reloads by others; reconcile."""
    machine = type("MachineOfThisTest", (Machine,), {"pipeline": pipeline})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100 if soak else 3,
            stateful_step_count=20 if soak else 10,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=not soak,
            database=None,
        ),
    )
