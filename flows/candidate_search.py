"""
The search among candidates: several seeds or settings, each a Prefect task run and a child run in MLflow.

Of several seeds the best model goes on as it was trained. Of several settings the best are trained with once more, on
all training rows.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from flows.console import progress
from flows.orchestration.prefect_records import artifact_key, keep_table
from flows.orchestration.tasks import in_parallel
from flows.promotion_run import PromotionRun
from flows.promotion_steps import train
from flows.recipes import Recipe
from flows.recipes.tuning import current_settings, with_settings
from flows.registry.run import Run
from flows.registry.tags import FLOW_RUN, PARENT_RUN
from flows.search.asked import space_of
from flows.search.candidate import Measured, Order
from flows.search.processes import Cancelled, CandidateFailed, Nursery, at_once
from flows.tables.options import TableOptions
from flows.tables.recipe import TableRecipe
from flows.training import fit
from flows.training.dataset import Dataset

log = logging.getLogger(__name__)

_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class Tried:
    """One candidate of a search."""

    number: int
    """from 1"""
    seed: int
    settings: Mapping[str, Any]
    measured: Measured | None = None
    """None where its training failed"""
    error: str = ""
    """why it failed"""

    @property
    def score(self) -> float | None:
        """On the validation rows, larger is better; None where its training failed."""
        return None if self.measured is None else self.measured.score

    @property
    def row(self) -> dict[str, Any]:
        """Of a table of candidates."""
        measured = {} if self.measured is None else self.measured.metrics
        return {"candidate": self.number, "seed": self.seed, **self.settings, **measured, "error": self.error}


def params(recipe: Recipe, seed: int, epochs: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a training depends on, as far as it is known before the search."""
    searched = space_of(recipe, parameters) if parameters["tune"] else {}
    asked = {name: parameters[name] for name in ("candidates", "tune") if parameters[name]}
    known = {name: value for name, value in fit.params(recipe, seed, epochs).items() if name not in searched}
    return {**known, **asked}


def trained(run: PromotionRun, dataset: Dataset, seed: int, epochs: int, parameters: Mapping[str, Any]) -> Path:
    """
    Train one candidate, or take the best of several; the directory of its SavedModel.

    Args:
        run: Its request names the recipe.
        dataset: The recipe's data.
        seed: Of the training; the first of several.
        epochs: How often every row is seen.
        parameters: Those of the flow, with the name of the recipe.
    """
    if parameters["tune"]:
        best = _tuned(run, dataset, seed, epochs, parameters)
        epochs = best.settings.get("epochs", epochs)
        run.request = replace(run.request, recipe=with_settings(run.request.recipe, best.settings))
    elif parameters["candidates"]:
        return _best_of_seeds(run, dataset, seed, epochs, parameters)
    return train(run, dataset, seed, epochs, parameters["resume"])


def _best_of_seeds(run: PromotionRun, dataset: Dataset, seed: int, epochs: int, parameters: Mapping[str, Any]) -> Path:
    count = parameters["candidates"]
    with _searching(run, dataset, epochs, parameters, count) as found:
        found.train([((seed + number) % _SEEDS, {}) for number in range(count)])
        best = found.best()
        found.record(best, f"seed {best.seed}")
        saved_model = found.saved_model(best.number)
    if isinstance(recipe := run.request.recipe, TableRecipe):
        recipe.schema.write(saved_model)
    return saved_model


def _tuned(run: PromotionRun, dataset: Dataset, seed: int, epochs: int, parameters: Mapping[str, Any]) -> Tried:
    """The best settings."""
    from flows.search.trials import search  # Optuna takes a while to import

    recipe, trials = run.request.recipe, parameters["tune"]
    with _searching(run, dataset, epochs, parameters, trials) as found:

        def try_settings(group: Sequence[dict[str, Any]]) -> list[float | None]:
            return [each.score for each in found.train([(seed, settings) for settings in group])]

        search(space_of(recipe, parameters), current_settings(recipe), trials, seed, try_settings)
        best = found.best()
        found.record(best, ", ".join(f"{name} {_short(value)}" for name, value in best.settings.items()))
    run.mlflow.log_params(best.settings)
    return best


@contextmanager
def _searching(
    run: PromotionRun, dataset: Dataset, epochs: int, parameters: Mapping[str, Any], count: int
) -> Iterator[_Search]:
    """A search for the length of the block, whose end ends what still trains."""
    with run.timed("search"), Nursery(run.deployment.settings.home.absolute() / "logs" / "candidates.log") as nursery:
        yield _Search(run, dataset.digest, epochs, parameters, count, nursery)


@dataclass
class _Search:
    """Trains candidates of one run, and remembers what they came to."""

    run: PromotionRun
    digest: str
    """of the data"""
    epochs: int
    parameters: Mapping[str, Any]
    count: int
    """how many are to be trained"""
    nursery: Nursery
    tried: list[Tried] = field(default_factory=list)

    def train(self, wanted: Sequence[tuple[int, Mapping[str, Any]]]) -> list[Tried]:
        """Train candidates with these seeds and settings beside each other; what each has come to."""
        done = len(self.tried)
        progress.step(f"training {self.count} candidates, {done} are done")
        begun = [Tried(number, seed, settings) for number, (seed, settings) in enumerate(wanted, done + 1)]
        names = [f"candidate {each.number}" for each in begun]
        ended = in_parallel(self._train, names, begun)
        found = [
            replace(each, error=str(measured)) if isinstance(measured, Exception) else replace(each, measured=measured)
            for each, measured in zip(begun, ended, strict=True)
        ]
        self.tried += found
        return found

    def best(self) -> Tried:
        """
        The best of those that could be trained, the first of equal ones.

        Raises:
            CandidateFailed: None could be trained.
        """
        scores = [-math.inf if each.score is None else each.score for each in self.tried]
        if max(scores) == -math.inf:
            raise CandidateFailed(f"None of {self.count} candidates could be trained: {self.tried[0].error}")
        return self.tried[scores.index(max(scores))]

    def record(self, best: Tried, what: str) -> None:
        """Say in the terminal, in Prefect and in MLflow what the candidates have come to, and which is the best."""
        model, rows = self.run.deployment.model, [each.row for each in self.tried]
        measured = best.measured
        assert measured is not None
        name, failed = measured.score_name, sum(each.measured is None for each in self.tried)
        number = f"{measured.score_name.replace('_', ' ')} {measured.metrics.get(name, measured.score):.4g}"
        lost = f", {failed} of them failed" if failed else ""
        chosen = f"candidate {best.number}, {what}: {number} on {measured.rows} validation rows"
        progress.report(f"trained {len(rows)} candidates{lost}; the best is {chosen}")
        self.run.note(chosen=chosen)
        self.run.mlflow.tag({"chosen": chosen})
        self.run.mlflow.log_page("candidates.json", json.dumps(rows, indent=1))
        keep_table(artifact_key("candidates", model), rows, f"Candidates of {model}; the best is {best.number}")

    def saved_model(self, number: int) -> Path:
        """Where the SavedModel of a candidate is."""
        return self.run.directory / f"candidate-{number}" / "saved_model"

    def _train(self, candidate: Tried) -> Measured:
        """
        Train one candidate, and record it as a child of the run.

        Raises:
            CandidateFailed: It could not be trained.
            Cancelled: The search has ended meanwhile.
        """
        child = self._child(candidate)
        try:
            saved_model = self.saved_model(candidate.number)
            saved_model.parent.mkdir()
            with child.epoch_metrics() as recorded:
                measured = self.nursery.train(self._order(candidate, saved_model), recorded.add)
            child.log_metrics({f"selection_{name}": value for name, value in measured.metrics.items()})
            child.log_model_summary(measured.facts, measured.summary)
        except BaseException as exc:
            child.tag({"error": str(exc)[:500]})
            child.end("KILLED" if isinstance(exc, Cancelled) else "FAILED")
            raise
        child.end("FINISHED")
        log.info("candidate trained number=%d score=%.4g", candidate.number, measured.score)
        return measured

    def _child(self, candidate: Tried) -> Run:
        deployment, epochs = self.run.deployment, self._epochs(candidate)
        params = {**fit.params(self.run.request.recipe, candidate.seed, epochs), **candidate.settings}
        tags = {PARENT_RUN: self.run.mlflow.id, FLOW_RUN: str(flow_run.id)}
        return deployment.registry.start_run(deployment.model, f"candidate {candidate.number}", params, tags)

    def _order(self, candidate: Tried, saved_model: Path) -> Order:
        return Order(
            recipe=self.parameters["recipe"],
            table={name: self.parameters.get(name) for name in TableOptions.__slots__},
            digest=self.digest,
            seed=candidate.seed,
            epochs=self._epochs(candidate),
            settings=candidate.settings,
            saved_model=saved_model,
            threads=max(1, at_once() // self.count),
        )

    def _epochs(self, candidate: Tried) -> int:
        return int(candidate.settings.get("epochs", self.epochs))


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
