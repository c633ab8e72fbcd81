"""What does Tab offer? Only what is cheap to know: the directories of the models repository."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import typer

RECIPES = ("iris", "digits")


def recipes(incomplete: str) -> list[str]:
    """The recipes that come with hotswap."""
    return _starting(incomplete, RECIPES)


def models(incomplete: str) -> list[str]:
    """The models of the repository."""
    return _starting(incomplete, _asked(lambda repository: repository.models()))


def labels(incomplete: str) -> list[str]:
    """The labels that have an alias of another name."""
    return _starting(incomplete, ("stable", "canary"))


def published(context: typer.Context, incomplete: str) -> list[str]:
    """The published versions of the model that the command names."""
    model = context.params.get("model") or ""
    return _starting(incomplete, _asked(lambda repository: repository.versions(model)))


def retired(context: typer.Context, incomplete: str) -> list[str]:
    """The retired versions of the model that the command names."""
    model = context.params.get("model") or ""
    return _starting(incomplete, _asked(lambda repository: repository.retired(model)))


def versions(context: typer.Context, incomplete: str) -> list[str]:
    """Both."""
    return [*published(context, incomplete), *retired(context, incomplete)]


def _asked(question: Callable[[Any], Iterable[Any]]) -> list[str]:
    from flows.settings import load_settings
    from serving.protocol.errors import HotswapError
    from serving.repository.store import Repository

    try:
        return [str(each) for each in question(Repository(load_settings().models_repo))]
    except (HotswapError, OSError):  # nobody wants to read why while typing
        return []


def _starting(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
