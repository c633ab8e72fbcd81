"""
The parameters of a training and of a promotion, each declared once.

The commands, the flows and the functions for Python take them as ``**parameters``; `spelled_out` shows each of them in
the signature, from which the command line, Prefect's page and a notebook take name, type, default and description.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ParamSpec, TypedDict, TypeVar, get_args, get_type_hints

import typer
from annotated_types import Interval

from serving.protocol.errors import HotswapError

P = ParamSpec("P")
R = TypeVar("R")


class InvalidParameter(HotswapError):
    """A flow cannot run with this parameter."""


class Choices:
    """Words of which a parameter is one; Prefect, which reads them by way of Pydantic, offers them on its page."""

    def __init__(self, *words: str) -> None:
        self._words = words

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self._words)}


TaskName = Annotated[str, Choices("classification", "regression")]
"""one of these, which Prefect's page offers as a choice"""


@dataclass(frozen=True, slots=True)
class Default:
    """The value of a parameter that is not given; None without it."""

    value: Any


def _stated(reason: str | None) -> str | None:
    if reason is not None and not reason.strip():
        raise typer.BadParameter("the reason is empty: write why, or leave the option out")
    return reason


def _recipes(incomplete: str) -> list[str]:
    """The recipes that come with hotswap, and the Python files that begin like this."""
    from flows.recipes.finding import BUILT_IN

    typed = Path(incomplete)
    files = typed.parent.glob(f"{escape(typed.name)}*.py") if typed.name else ()
    return [*(name for name in BUILT_IN if name.startswith(incomplete)), *sorted(map(str, files))]


Reason = Annotated[
    str | None,
    typer.Option(metavar="TEXT", callback=_stated, help="Why; the journal keeps it, `history` shows it."),
]
RecipeName = Annotated[
    str, typer.Argument(autocompletion=_recipes, help="iris or digits, or your own: churn.py, or package.module.")
]
ScheduledRecipe = Annotated[str | None, typer.Argument(autocompletion=_recipes, help="As `train` takes it.")]
JudgingRecipe = Annotated[
    str,
    typer.Argument(
        autocompletion=_recipes,
        help="The recipe whose rows and thresholds decide, as in `train`; with --csv or --unevaluated the model.",
    ),
]


class JudgingParameters(TypedDict, total=False):
    """What is required of a candidate, and what becomes of it when it passes."""

    min_accuracy: Annotated[
        float | None,
        Interval(ge=0, le=1),
        typer.Option(help="The share of held-out rows that must be right; else the recipe decides."),
    ]
    allow_breaking: Annotated[
        bool,
        Default(False),
        typer.Option("--allow-breaking", help="Pass although clients of the live version find changed signatures."),
    ]
    bake: Annotated[
        float,
        Default(0.0),
        Interval(ge=0, le=31_536_000),
        typer.Option(help="Seconds to watch the new version, and undo it when it is worse."),
    ]
    label: Annotated[
        str,
        Default("stable"),
        typer.Option(metavar="NAME", help="What it gets when it passes; with canary, what is stable stays so."),
    ]
    approve: Annotated[
        bool,
        Default(False),
        typer.Option("--approve", help="Wait before the label moves, until `hotswap approve` or Prefect's page."),
    ]
    approve_within: Annotated[
        float,
        Default(24.0),
        Interval(ge=0.0001, le=720),
        typer.Option(help="Hours until what nobody has approved is taken out again."),
    ]
    reason: Reason


class FittingParameters(TypedDict, total=False):
    """How a model is fitted."""

    seed: Annotated[
        int,
        Default(42),
        Interval(ge=0, le=2**32 - 1),
        typer.Option(help="Of the weights and of the order of the rows; the held-out rows are always the same."),
    ]
    epochs: Annotated[
        int | None,
        Interval(ge=1, le=100_000),
        typer.Option(help="How often every row is seen; else the recipe decides."),
    ]
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN_ID", help="The MLflow run of an interrupted training, to go on where it was."),
    ]


class SearchParameters(TypedDict, total=False):
    """Several candidates, of which the best one is judged."""

    candidates: Annotated[
        int | None,
        Interval(ge=2, le=64),
        typer.Option(help="Train so many seeds, and take the best by a part of the training rows."),
    ]
    tune: Annotated[
        int | None,
        Interval(ge=2, le=1_000),
        typer.Option(help="Try so many settings, and train with the best by a part of the training rows."),
    ]


class SourceParameters(TypedDict, total=False):
    """Where a model is that is there already: one of these."""

    run: Annotated[str | None, typer.Option(metavar="RUN_ID", help="The MLflow run that keeps the model.")]
    saved_model: Annotated[Path | None, typer.Option(metavar="DIRECTORY", help="A SavedModel from elsewhere instead.")]
    version: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="A published version, such as a canary, to be made stable.")
    ]


class EvidenceParameters(TypedDict, total=False):
    """What a model is judged by, instead of a recipe."""

    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Held-out rows to judge it by, CSV or Parquet, where there is no recipe."),
    ]
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="What the model predicts.")]
    task: Annotated[
        TaskName | None,
        typer.Option(metavar="TASK", help="classification or regression; else the target and the answers decide."),
    ]
    unevaluated: Annotated[
        str | None,
        typer.Option(metavar="REASON", callback=_stated, help="Why it goes without held-out rows, which is kept."),
    ]


class TableParameters(TypedDict, total=False):
    """A table to learn from, instead of a recipe."""

    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A CSV or Parquet file to learn from, instead of a recipe."),
    ]
    target: Annotated[str | None, typer.Option(metavar="COLUMN", help="What is to be predicted.")]
    name: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model's name; else it is called like the file.")
    ]
    task: Annotated[
        TaskName | None,
        typer.Option(metavar="TASK", help="classification or regression; else the target's values decide."),
    ]
    drop: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="Leave this column out; may be repeated.")]
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Take this column although it would be left out; may be repeated."),
    ]
    time: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Hold out the newest rows by this column, not any rows.")
    ]
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Hold out whole groups of rows, those with one value here.")
    ]
    test_share: Annotated[
        float,
        Default(0.2),
        Interval(ge=0.01, le=0.9),
        typer.Option(help="The share of the table's rows that is held out."),
    ]
    positive: Annotated[
        str | None, typer.Option(metavar="VALUE", help="The class that is looked for, such as yes; it comes second.")
    ]


class TrainParameters(TableParameters, FittingParameters, SearchParameters, JudgingParameters, total=False):
    """Of a training, beside the recipe."""


class PromoteParameters(SourceParameters, EvidenceParameters, JudgingParameters, total=False):
    """Of a promotion, beside the recipe."""


class DriftParameters(TypedDict, total=False):
    """Of a comparison of the logged requests with the training data, beside the model."""

    version: Annotated[
        int | None, Interval(ge=1, le=2**63 - 1), typer.Option(help="Whose training data it is; else the stable one's.")
    ]
    log: Annotated[str | None, typer.Option(metavar="DIRECTORY", help="The request log; else HOTSWAP_HOME/requests.")]
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Leave older requests out: 24h, 7d, 2026-11-22T10:00.")
    ]
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="CSV or Parquet with the truth: how good were the answers?")
    ]
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Its column that the model predicts; else the table's target.")
    ]
    on: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Its columns that identify a row; else all inputs."),
    ]
    psi: Annotated[
        float,
        Default(0.1),
        Interval(ge=0, le=100),
        typer.Option(help="The least change of a column that counts: its population stability index."),
    ]
    level: Annotated[
        float,
        Default(0.05),
        Interval(ge=0, le=1),
        typer.Option(help="How often chance alone may show any change, with all columns together."),
    ]
    min_rows: Annotated[
        int, Default(100), Interval(ge=1, le=200_000), typer.Option(help="With fewer rows nothing is said.")
    ]


def spelled_out(function: Callable[P, R]) -> Callable[P, R]:
    """
    `function`, whose signature names each parameter that it takes as ``**parameters: Unpack[…]``.

    It is called with all of them, those that were not given with their defaults.
    """
    own = {name: each for name, each in function.__annotations__.items() if name != "return"}
    hints = get_type_hints(SimpleNamespace(__annotations__=own), function.__globals__, include_extras=True)
    signature = _expanded(inspect.signature(function), hints)

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()
        return function(**bound.arguments)  # type: ignore[call-arg]

    call.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
    vars(call)["__signature__"] = signature
    return call


def _expanded(signature: inspect.Signature, hints: Mapping[str, Any]) -> inspect.Signature:
    """The signature with the parameters of the `Unpack` after the positional ones, and types instead of their names."""
    given = [each.replace(annotation=hints[each.name]) for each in signature.parameters.values()]
    rest = given.pop()
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    listed = [
        inspect.Parameter(name, kind, annotation=hint, default=_default(hint))
        for name, hint in types_of(get_args(rest.annotation)[0]).items()
    ]
    positional = [each for each in given if each.kind is kind]
    return signature.replace(parameters=[*positional, *listed, *(each for each in given if each.kind is not kind)])


def types_of(declared: Any) -> dict[str, Any]:
    """The types of the parameters of a `TypedDict`, with their bounds and descriptions, in the order of declaration."""
    return get_type_hints(declared, include_extras=True)


def _default(hint: Any) -> Any:
    return next((each.value for each in hint.__metadata__ if isinstance(each, Default)), None)


def description(hint: Any) -> str:
    """What a type says of its parameter; empty for a type that says nothing."""
    return next((each.help for each in getattr(hint, "__metadata__", ()) if getattr(each, "help", None)), "")


def documented(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, with what the types of its parameters say of them in its docstring."""
    named = inspect.signature(function).parameters.values()
    lines = [f"    {each.name}: {text}" for each in named if (text := description(each.annotation))]
    if lines:
        summary, section, rest = inspect.cleandoc(function.__doc__ or "").partition("Returns:\n")
        function.__doc__ = "\n".join([summary.rstrip(), "", "Args:", *lines, "", section + rest]).rstrip()
    return function


def plain(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, whose signature has the bare types of its parameters."""
    signature = inspect.signature(function)
    bare = [
        each.replace(annotation=get_args(each.annotation)[0] if description(each.annotation) else each.annotation)
        for each in signature.parameters.values()
    ]
    vars(function)["__signature__"] = signature.replace(parameters=bare)
    return function


def check_bounds(declared: Any, parameters: Mapping[str, object]) -> None:
    """
    Raises:
        InvalidParameter: A number is out of its bounds.
    """
    for name, hint in types_of(declared).items():
        bounds = next((each for each in hint.__metadata__ if isinstance(each, Interval)), None)
        value: Any = parameters.get(name)
        if bounds is not None and value is not None and not bounds.ge <= value <= bounds.le:
            words = name.replace("_", " ")
            raise InvalidParameter(f"The {words} must be from {bounds.ge} to {bounds.le}, not {value}")
