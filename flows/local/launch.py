"""
Runs the flows that train and promote in this process, without waiting for one thing after the other.

What takes long to import is imported while a temporary Prefect server starts.
"""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from flows.console import progress
from flows.console.terminal import COLUMNS
from flows.machine.garbage import uncollected
from flows.orchestration import deployments, prefect_access, run_log
from flows.orchestration.prefect_server import check_answers, find_prefect, find_running_prefect
from flows.parameters import DriftParameters, InvalidParameter, PromoteParameters, TrainParameters, check_bounds
from flows.promotion.deployment import Deployment
from flows.promotion.labels import STABLE, validate_label
from flows.promotion.resuming import bring_checkpoint
from flows.search.asked import check_asked
from flows.settings import Settings, apply_environment, prepare_home
from flows.tables.evidence import evidence_of
from flows.tables.options import recipe_of, table_options, titled
from flows.training.checkpoints import interrupted
from serving.protocol.redaction import redacted
from serving.repository.saved_model_files import check_complete
from serving.runtime.native_logs import without_start_up_notes

if TYPE_CHECKING:
    from flows.drift.report import DriftReport
    from flows.promotion_run import TrainOutcome

log = logging.getLogger(__name__)


@run_log.kept()
def train(settings: Settings, recipe: str = "iris", **parameters: Unpack[TrainParameters]) -> TrainOutcome:
    """
    Run the flow `train_and_promote` in this process, against the Prefect server that is configured or runs already.

    Raises:
        HotswapError: It failed; nothing of what was live has changed.
    """
    check_bounds(TrainParameters, parameters)
    recipe = titled(recipe, parameters)
    _show_columns(parameters)
    found = recipe_of(recipe, parameters)
    check_asked(found, parameters)
    model = found.name
    if run := parameters.get("resume"):
        bring_checkpoint(settings, model, run)
        interrupted(settings.home, run, model)
    _prepare(settings, model, parameters)
    from flows.promotion_run import TrainOutcome
    from flows.train_and_promote import train_and_promote

    outcome = deployments.run(train_and_promote, "train", {"recipe": recipe, **parameters})
    assert isinstance(outcome, TrainOutcome)
    return outcome


@run_log.kept()
def promote(settings: Settings, recipe: str, **parameters: Unpack[PromoteParameters]) -> TrainOutcome:
    """
    Run the flow `promote` as `train` runs its own, for the model of an MLflow run, a directory or a published version.

    Raises:
        HotswapError: It failed; nothing of what was live has changed.
    """
    check_bounds(PromoteParameters, parameters)
    evidence = evidence_of(recipe, parameters)
    _check_source(settings, evidence.recipe.name, parameters)
    if evidence.unevaluated is not None:
        parameters["unevaluated"] = redacted(evidence.unevaluated)
    _prepare(settings, evidence.recipe.name, parameters)
    from flows.promotion_run import TrainOutcome
    from flows.train_and_promote import promote as promote_model

    outcome = deployments.run(promote_model, "promote", {"recipe": recipe, **parameters})
    assert isinstance(outcome, TrainOutcome)
    return outcome


def drift(settings: Settings, model: str, **parameters: Unpack[DriftParameters]) -> DriftReport:
    """
    Run the flow `drift` where a Prefect server answers; where none does, the same without its records.

    Raises:
        HotswapError: There is nothing to compare.
    """
    check_bounds(DriftParameters, parameters)
    deployment = Deployment(settings, model)
    with without_start_up_notes():
        import tensorflow  # noqa: F401
    if not find_running_prefect(settings):
        from flows.reports.drift import asked_of, examine

        return examine(deployment, asked_of(parameters)).report
    from flows.check_drift import drift as compare
    from flows.drift.report import DriftReport

    report = compare(model, **parameters)
    assert isinstance(report, DriftReport)
    return report


def _show_columns(parameters: TrainParameters) -> None:
    """What becomes of the columns of a table, and why, before anything is trained on them."""
    if (options := table_options(parameters)) is not None:
        from flows.tables.making import table_recipe

        progress.step(f"reading {options.csv}")
        progress.report(table_recipe(options).described(COLUMNS))


def _check_source(settings: Settings, model: str, parameters: PromoteParameters) -> None:
    """See that there is one model to promote, before anything is started."""
    saved_model, version = parameters.get("saved_model"), parameters.get("version")
    if sum(each is not None for each in (parameters.get("run"), saved_model, version)) != 1:
        raise InvalidParameter("Name the model: either --run RUN_ID, --saved-model DIRECTORY or --version NUMBER")
    if saved_model is not None:
        check_complete(Path(saved_model))
    if version is not None:
        _check_version(settings, model, version, parameters.get("label", STABLE))


def _check_version(settings: Settings, model: str, version: int, label: str) -> None:
    from flows.promotion import promotion

    if label != STABLE:
        command = f"hotswap label {model} {label} {version}"
        raise InvalidParameter(
            f"--version makes a published version the stable one: `{command}` gives it another label"
        )
    promotion.check_promotable(Deployment(settings, model), version)


def _prepare(settings: Settings, model: str, parameters: TrainParameters | PromoteParameters) -> None:
    """See that all servers answer; then import TensorFlow and MLflow while Prefect's server starts."""
    validate_label(parameters.get("label", STABLE))
    # Prefect keeps the parameters of a flow as they are.
    if reason := parameters.get("reason"):
        parameters["reason"] = redacted(reason)
    deployment = Deployment(settings, model)
    deployment.repository.check_writable()
    prepare_home(settings)
    apply_environment(settings)
    progress.step("asking the servers")
    deployment.servers.ask_first(deployment.model)
    server = find_prefect(settings)
    progress.note("using the Prefect server that runs" if server is None else "starting Prefect")
    progress.note("loading TensorFlow")
    with uncollected(), without_start_up_notes():
        # First and alone: the slowest, while the server starts.
        import keras  # noqa: F401
        import tensorflow

        tensorflow.config.list_logical_devices()
        tensorflow.get_logger().setLevel(logging.WARNING)  # a notebook would get its notes of every export

    progress.note("loading MLflow and Prefect")
    with uncollected():
        import flows.train_and_promote  # noqa: F401  (imported while the server starts)
    prefect_access.read_settings()  # Prefect may have been imported long before, as in a notebook.
    gc.freeze()  # what is loaded now stays; later collections need not look at it

    progress.note("opening MLflow's database")
    # Makes MLflow's database if there is none, while the Prefect server makes its own.
    deployment.open_registry()
    if server is not None:
        progress.note("waiting for Prefect's server")
        server.wait()
    else:
        check_answers(os.environ["PREFECT_API_URL"])
        prefect_access.check()
