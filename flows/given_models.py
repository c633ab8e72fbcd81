"""The steps of a promotion of a model that is there already: where it is, whether it answers, and what it is asked."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from flows.gate.gates import GateDecision
from flows.gate.unevaluated import cannot_answer
from flows.promotion import promotion
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE
from flows.promotion_run import PromotionRun, step
from flows.promotion_steps import report_gate
from flows.tasks import CannotEvaluate
from flows.training.candidate import Unevaluated, ask_made_rows
from flows.training.inspection import Inspection
from flows.training.predictor import NotRestored, load_predictor
from serving.protocol.errors import HotswapError, IncompleteSavedModel
from serving.repository.saved_model_files import check_complete, digest
from serving.repository.stamp import STAMP_FILE, Stamp

log = logging.getLogger(__name__)


class SameFiles(HotswapError):
    """A model was to be promoted whose files are a version already."""


@step("fetch", "loading data", timed_as="load")
def fetch(run: PromotionRun, run_id: str | None, saved_model: Path | None, version: int | None) -> Path:
    """
    A copy of the SavedModel that an MLflow run keeps, that is in a directory, or that is published.

    Raises:
        IncompleteSavedModel: There is none, or it cannot be copied.
    """
    if version is not None:
        source = promotion.check_promotable(run.deployment, version)
    elif run_id is not None:
        source = run.deployment.registry.run(run_id).download_model(run.directory / "kept")
    else:
        assert saved_model is not None
        source = saved_model
    candidate = run.directory / "saved_model"
    check_complete(source)
    try:
        shutil.copytree(source, candidate, ignore=shutil.ignore_patterns(STAMP_FILE.name))
    except OSError as exc:
        raise IncompleteSavedModel(f"{source} cannot be copied: {exc}; see that all of it can be read") from exc
    return candidate


def published_as(run: PromotionRun, saved_model: Path) -> int | None:
    """
    The published version that these files are already, to go on with; the run ends where that has its label.

    Raises:
        SameFiles: They are a version that another command has to be asked for.
    """
    deployment, content, label = run.deployment, digest(saved_model), run.request.label
    same = [version for version in deployment.versions if deployment.stamp(version).digest == content]
    if not same:
        _check_not_retired(deployment, content)
        return None
    version = max(same, key=lambda each: (deployment.labels.read().get(label) == each, each))
    run.note(was_there=True)
    if deployment.labels.read().get(label) == version:
        log.info("these files are live already model=%s version=%d label=%s", deployment.model, version, label)
        run.end(version=version, digest=content, label=label)
    if label != STABLE:
        command = f"hotswap label {deployment.model} {label} {version}"
        raise SameFiles(f"These files are version {version} of {deployment.model!r} already: `{command}` labels it")
    return version


def _check_not_retired(deployment: Deployment, content: str) -> None:
    repository, model = deployment.repository, deployment.model
    for version in repository.retired(model):
        stamp = Stamp.read(repository.retired_path(model, version))
        if stamp is not None and stamp.digest == content:
            raise SameFiles(
                f"These files are version {version} of {model!r}, which is retired: put it back with "
                f"`hotswap restore {model} {version}`, and promote it with --version {version}"
            )


@step("try", "asking the candidate", timed_as="evaluate")
def can_answer(run: PromotionRun, saved_model: Path, inspection: Inspection) -> GateDecision | None:
    """Ask rows made from the signature; a decision against a candidate that loads and cannot answer any."""
    request, predict = run.request, load_predictor(saved_model)
    try:
        ask_made_rows(request.recipe, saved_model, inspection, predict, request.unevaluated or "")
    except NotRestored as exc:
        why = (
            "it loads, but what it computes with was not restored from its files, so that it answers no row: export it "
            f"again, with model.export(), and ask it once after loading it ({_told(exc, saved_model)})"
        )
    except CannotEvaluate as exc:
        if request.unevaluated is None:  # rows of its own are yet to come
            return None
        why = (
            f"it does not answer rows made from its signature ({_told(exc, saved_model)}): "
            "judge it by rows of its own, --csv FILE --target COLUMN"
        )
    else:
        return None
    decision = cannot_answer(why, request.recipe.thresholds)
    report_gate(run, decision)
    return decision


def _told(exc: CannotEvaluate, saved_model: Path) -> str:
    return str(exc).removeprefix(f"{saved_model} does not answer: ")


@step("make_rows", "asking the candidate", timed_as="evaluate")
def ask_unevaluated(run: PromotionRun, saved_model: Path, inspection: Inspection, reason: str) -> Unevaluated:
    """Ask the candidate rows made from its signature, as there are no others."""
    run.mlflow.tag({"unevaluated": reason})
    log.warning("candidate is not evaluated: %s", reason)
    return ask_made_rows(run.request.recipe, saved_model, inspection, load_predictor(saved_model), reason)
