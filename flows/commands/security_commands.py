"""The commands that protect the rest: keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.edges import show
from flows.commands.options import Json

app = typer.Typer()


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; the public one goes to FILE.pub.")],
    as_json: Json = False,
) -> None:
    """Make a key pair that signs the versions that go live."""
    from serving.repository.signatures import make_key_pair

    public = make_key_pair(file.absolute())
    text = (
        f"Made the private key {file.absolute()}, which signs what is published with "
        f"HOTSWAP_SIGNING_KEY_FILE={file.absolute()}, and the public key {public}, with which "
        f"HOTSWAP_TRUSTED_KEYS_FILE={public} serves nothing else."
    )
    show({"private": str(file.absolute()), "public": str(public)}, text, as_json)
