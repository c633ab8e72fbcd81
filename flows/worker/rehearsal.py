"""
A training that nobody sees: what is slow at the first time is over before a command comes.

TensorFlow makes its threads and translates Keras's functions to graphs, modules are imported that nothing imports
before it is used, and databases and connections are opened. It takes seconds, so it is done while nothing else is.
"""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from flows.gate.figures import as_png, confusion_figure, evaluation_figure
from flows.gate.gates import Facts, judge
from flows.machine.workspaces import temporary_directory
from flows.orchestration import prefect_access
from flows.promotion.deployment import Deployment
from flows.recipes import iris
from flows.registry import pyfunc_arguments
from flows.settings import Settings
from flows.training.candidate import load_candidate
from flows.training.dataset import load_dataset
from flows.training.export import export
from flows.training.fit import fit
from flows.training.inspection import inspect
from flows.training.summary import model_summary
from serving.protocol.errors import HotswapError
from serving.runtime.native_logs import without_start_up_notes

log = logging.getLogger(__name__)

_RECIPE = replace(iris.RECIPE, name="rehearsal")


def rehearse(settings: Settings) -> None:
    """Do all that leaves nothing behind."""
    try:
        with without_start_up_notes(), temporary_directory() as directory:
            _train(directory)
        Deployment(settings, _RECIPE.name).open_registry()
        prefect_access.read_settings()
        prefect_access.connect_beside()
    except (HotswapError, OSError) as exc:
        log.warning("not rehearsed: %s", exc)
    finally:
        keras.utils.clear_session()
        random.seed()
        np.random.seed()  # which Keras has seeded


def _train(directory: Path) -> None:
    dataset = load_dataset(_RECIPE)
    fitted = fit(_RECIPE, dataset, 0, 1, lambda *_: None)
    model_summary(fitted.model)
    saved_model = directory / "saved_model"
    export(fitted.model, dataset, _RECIPE.name, saved_model)
    candidate = load_candidate(_RECIPE, dataset, saved_model, inspect(saved_model))
    pyfunc_arguments.save(saved_model, candidate.golden, directory / "pyfunc")
    judge(Facts(candidate.evaluation, candidate.inspection, candidate.slices), _RECIPE.thresholds)
    for figure in (confusion_figure(candidate.evaluation), evaluation_figure(candidate.evaluation, candidate.slices)):
        as_png(figure)
