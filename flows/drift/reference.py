"""Makes the profile of a candidate, once it has been trained and has answered its held-out rows."""

from __future__ import annotations

import numpy as np

from flows.drift.answers import answer_columns
from flows.drift.columns import Kind, columns_of, text_kind
from flows.drift.profile import ColumnProfile, Profile
from flows.tables.columns import Kind as TableKind
from flows.tables.schema import Schema
from flows.training.candidate import Candidate
from flows.training.predictor import judged_name

_TABLE_KINDS = {TableKind.TEXT: None, TableKind.DATE: Kind.DATE}


def profile_of(candidate: Candidate) -> Profile:
    """What it was trained on, by the inputs of its signature, and what it answered."""
    dataset = candidate.dataset
    output = judged_name(candidate.outputs)
    features = dataset.feature_names if len(dataset.train.inputs) == 1 else ()
    inputs = candidate.predict.bind(dataset.train.inputs)
    texts = {name: text_kind(array) for name, array in inputs.items() if array.dtype == object}
    kinds = {**texts, **_kinds(Schema.read(candidate.saved_model))}
    class_names = dataset.class_names
    counts = np.bincount(dataset.train.targets, minlength=len(class_names)).tolist() if class_names else []
    return Profile(
        tuple(map(ColumnProfile.of, columns_of(inputs, features, kinds))),
        tuple(map(ColumnProfile.of, answer_columns(candidate.outputs[output], class_names))),
        output,
        dataset.task.name,
        class_names,
        dict(zip(class_names, counts, strict=True)),
        features,
        kinds,
    )


def _kinds(schema: Schema | None) -> dict[str, Kind | None]:
    """What the texts of a table are, by input."""
    texts = () if schema is None else (each for each in schema.columns if each.type == "string")
    return {each.input: _TABLE_KINDS.get(TableKind(each.kind), Kind.CATEGORY) for each in texts}
