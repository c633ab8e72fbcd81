"""The command that asks the model server."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands import presentation
from flows.commands.edges import plain_settings, show
from flows.commands.options import Json, Model
from flows.console import progress

if TYPE_CHECKING:
    from flows.prediction.asking import Query

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True})  # a row may begin with a minus
def predict(
    model: Model,
    rows: Annotated[
        list[str] | None,
        typer.Argument(help="Rows such as 5.1,3.5,1.4,0.2, one row as age=42 plan=basic, or - for JSON on input."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Predict for all rows of a CSV or Parquet file, of any size.")
    ] = None,
    out: Annotated[
        str, typer.Option(metavar="FILE", help="Where they go with the answers beside them; - for standard output.")
    ] = "-",
    version: Annotated[int | None, typer.Option(help="Ask this version.")] = None,
    label: Annotated[str | None, typer.Option(help="Ask the version that carries this label.")] = None,
    signature: Annotated[str, typer.Option(help="Ask this signature.")] = "",
    grpc: Annotated[bool, typer.Option("--grpc", help="Ask over gRPC instead of REST.")] = False,
    as_json: Json = False,
) -> None:
    """
    Ask the model server.

    Without --version and --label the version with label stable answers, where there is one. Single values are one row
    where a row has as many.
    """
    from flows.prediction.asking import Query, ask

    for row in rows or ():
        if row.startswith("--"):
            raise typer.BadParameter(f"there is no option {row}")
    if (csv is None) is (not rows):
        raise typer.BadParameter("write rows, or name a file by --csv FILE")
    query = Query(model, version, label, signature, grpc)
    if csv is not None:
        _score(query, csv, out, as_json)
        return
    answer = ask(plain_settings(), query, rows or ())
    show(presentation.answer_data(answer), presentation.answer_text(answer), as_json, hanging=4)


def _score(query: Query, csv: Path, out: str, as_json: bool) -> None:
    with progress.shown(f"scoring {csv}", logging.WARNING, quiet=True):
        from flows.prediction.scoring import score

        scored = score(plain_settings(), query, csv, out)
    if out != "-":
        what = f"{scored.rows:,} rows scored by {scored.model} version {scored.version}: {out}"
        show(dataclasses.asdict(scored), what, as_json)
