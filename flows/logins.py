"""
The one login of the pages that `hotswap up` serves: MLflow, Prefect and the operator.

The password is read from its file by each process that needs it, and is no argument of any.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field
from pathlib import Path

MIN_PASSWORD_LENGTH = 12
"""MLflow takes no shorter one"""


@dataclass(frozen=True, slots=True)
class Login:
    """Who may use the pages."""

    user: str
    password: str = field(repr=False)

    @property
    def auth_string(self) -> str:
        """As Prefect calls it."""
        return f"{self.user}:{self.password}"

    def fits(self, authorization: str) -> bool:
        """Whether the header ``Authorization`` carries it (RFC 7617)."""
        expected = base64.b64encode(self.auth_string.encode()).decode()
        scheme, _, given = authorization.partition(" ")
        return scheme.lower() == "basic" and hmac.compare_digest(given.strip().encode(), expected.encode())


def read_login(user: str, password_file: Path | None) -> Login | None:
    """
    The login of these settings; None where there is none.

    Raises:
        ValueError: There is a half of one, or one that cannot be used; the message says what to do.
    """
    if not user and password_file is None:
        return None
    if not user or password_file is None:
        raise ValueError("set HOTSWAP_UI_USER and HOTSWAP_UI_PASSWORD_FILE, or none of them")
    if not user.isascii() or not user.isprintable() or ":" in user:
        raise ValueError(f"HOTSWAP_UI_USER={user!r} cannot be used: a name is of ASCII without a colon")
    try:
        password = password_file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ValueError(f"HOTSWAP_UI_PASSWORD_FILE={password_file} cannot be read: {exc}") from exc
    if len(password) < MIN_PASSWORD_LENGTH or not password.isascii() or not password.isprintable():
        raise ValueError(
            f"HOTSWAP_UI_PASSWORD_FILE={password_file} must hold one line of at least {MIN_PASSWORD_LENGTH} letters, "
            "digits and signs of ASCII"
        )
    return Login(user, password)
