"""What do the arguments and options of the commands mean, and what does Tab offer for them?"""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands import completion


def _stated(reason: str | None) -> str | None:
    if reason is not None and not reason.strip():
        raise typer.BadParameter("the reason is empty: write why, or leave the option out")
    return reason


Wide = Annotated[bool, typer.Option("--wide", help="Whole ids and reasons, each row in one line.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the table of checks also when all passed.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
Model = Annotated[str, typer.Argument(autocompletion=completion.models, help="The model's name.")]
AnyModel = Annotated[
    str | None, typer.Argument(autocompletion=completion.models, help="The model's name; all models when not given.")
]
Recipe = Annotated[
    str,
    typer.Argument(autocompletion=completion.recipes, help="iris, digits, or the dotted path of a recipe of your own."),
]
JudgingRecipe = Annotated[
    str,
    typer.Argument(
        autocompletion=completion.recipes, help="The recipe whose rows and thresholds decide, as in `train`."
    ),
]
Label = Annotated[
    str,
    typer.Argument(
        autocompletion=completion.labels, help="stable (alias champion), canary (alias challenger), or another."
    ),
]
PublishedVersion = Annotated[int, typer.Argument(autocompletion=completion.published, help="A published version.")]
LabelledVersion = Annotated[
    int | None, typer.Argument(autocompletion=completion.published, help="A published version.")
]
RetiredVersion = Annotated[int, typer.Argument(autocompletion=completion.retired, help="A retired version.")]
AnyVersion = Annotated[int, typer.Argument(autocompletion=completion.versions, help="A published or retired version.")]
EarlierVersion = Annotated[
    int | None,
    typer.Option(autocompletion=completion.versions, help="The version to go back to; else the one before."),
]
MinAccuracy = Annotated[
    float | None, typer.Option(help="The share of held-out rows that must be right; else the recipe decides.")
]
AllowBreaking = Annotated[
    bool, typer.Option("--allow-breaking", help="Pass although clients of the live version find changed signatures.")
]
Bake = Annotated[float, typer.Option(help="Seconds to watch the new version, and undo it when it is worse.")]
PromotionLabel = Annotated[
    str,
    typer.Option("--label", metavar="NAME", help="What it gets when it passes; with canary, what is stable stays so."),
]
Reason = Annotated[
    str | None, typer.Option(metavar="TEXT", callback=_stated, help="Why; the journal keeps it, `history` shows it.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]
