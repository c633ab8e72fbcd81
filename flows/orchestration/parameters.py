"""
The parameters of the flows that promote a model, with the bounds and descriptions that Prefect's page shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

RecipeName = Annotated[str, Field(description="``iris``, ``digits``, or the dotted path of a recipe of your own.")]
Seed = Annotated[
    int,
    Field(
        ge=0,
        lt=2**32,
        description="Of the weights and of the order of the rows; the held-out rows are always the same.",
    ),
]
Epochs = Annotated[
    Annotated[int, Field(ge=1, le=100_000)] | None,
    Field(description="How often every row is seen; the recipe's own number when not given."),
]
MinAccuracy = Annotated[
    Annotated[float, Field(ge=0, le=1)] | None,
    Field(description="The share of held-out rows that must be recognised; the recipe's own number when not given."),
]
AllowBreaking = Annotated[
    bool, Field(description="Whether clients of the live version may find signatures or classes changed.")
]
BakeSeconds = Annotated[
    float,
    Field(
        ge=0,
        description="For how many seconds the new version is watched after it went live, and undone if it is worse.",
    ),
]
Reason = Annotated[str | None, Field(description="What the journal keeps as the reason for its promotion.")]
Label = Annotated[
    str, Field(description="What it gets if it passes; with any other than ``stable``, what is stable stays so.")
]
RunId = Annotated[str | None, Field(description="The MLflow run that keeps the model.")]
Directory = Annotated[
    Path | None,
    Field(description="Or a SavedModel with signature ``serving_default``, from ``input`` to ``output``."),
]
Version = Annotated[int | None, Field(description="Or a published version, such as a canary, to be made stable.")]
