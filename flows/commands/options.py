"""
The arguments and options of the commands: what they mean, and what Tab offers for them.

Tab offers only what is cheap to know: the directories of the models repository.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer


def models(incomplete: str) -> list[str]:
    """The models of the repository."""
    return _starting(incomplete, _offered(lambda repository: repository.models()))


def _labels(incomplete: str) -> list[str]:
    """The labels that have an alias of another name."""
    return _starting(incomplete, ("stable", "canary"))


def _published(context: typer.Context, incomplete: str) -> list[str]:
    """The published versions of the model that the command names."""
    model = context.params.get("model") or ""
    return _starting(incomplete, _offered(lambda repository: repository.versions(model)))


def _retired(context: typer.Context, incomplete: str) -> list[str]:
    """The retired versions of the model that the command names."""
    model = context.params.get("model") or ""
    return _starting(incomplete, _offered(lambda repository: repository.retired(model)))


def _versions(context: typer.Context, incomplete: str) -> list[str]:
    """The published and the retired versions."""
    return [*_published(context, incomplete), *_retired(context, incomplete)]


def _offered(ask: Callable[[Any], Iterable[Any]]) -> list[str]:
    from flows.settings import load_settings
    from serving.protocol.errors import HotswapError
    from serving.repository.store import Repository

    try:
        return [str(each) for each in ask(Repository(load_settings().models_repo))]
    except (HotswapError, OSError):  # a message would only disturb the typing
        return []


def _starting(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


Wide = Annotated[bool, typer.Option("--wide", help="Whole ids and reasons, each row in one line.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the table of checks also when all passed.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
Model = Annotated[str, typer.Argument(autocompletion=models, help="The model's name.")]
AnyModel = Annotated[
    str | None, typer.Argument(autocompletion=models, help="The model's name; all models when not given.")
]
Label = Annotated[
    str,
    typer.Argument(autocompletion=_labels, help="stable (alias champion), canary (alias challenger), or another."),
]
PublishedVersion = Annotated[int, typer.Argument(autocompletion=_published, help="A published version.")]
LabelledVersion = Annotated[int | None, typer.Argument(autocompletion=_published, help="A published version.")]
RetiredVersion = Annotated[int | None, typer.Argument(autocompletion=_retired, help="A retired version.")]
AnyVersion = Annotated[int, typer.Argument(autocompletion=_versions, help="A published or retired version.")]
EarlierVersion = Annotated[
    int | None,
    typer.Option(autocompletion=_versions, help="The version to go back to; else the one before."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]
