"""What an operator may set, read from the environment once, with errors that name the variable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from protocol.violations import Violation

MINUTES_DEFAULT = 10
MINUTES_MIN = 2
MINUTES_MAX = 24 * 60
DAYS_DEFAULT = 400
DAYS_MIN = 45
DAYS_MAX = 36_500
GRACE_DEFAULT = 34
GRACE_MAX = 40
KEY_BYTES_MIN = 32
KEY_BYTES_MAX = 1_024
DEFAULT_DATABASE_URL = "sqlite:////var/lib/allotment/control-plane.db"


@dataclass(frozen=True)
class Settings:
    """One control plane's configuration.

    Attributes:
        database_url: ``sqlite:///path`` or ``postgresql://...``; may hold a password, so it is never logged.
        tls_cert_file, tls_key_file: serve HTTPS with these; both or neither.
        seal_key: grants are sealed with it, so that a database restored to an older state knows them again.
        learning_minutes: how long agents that are missing are waited for after a restore.
        retention_days: for how long leases and windows that are over are kept, with their part of the ledger.
        grace_days: how old an event may be to count; older ones are kept for people to look at.
        admin_token, join_token: made by the operator and stored, hashed, at start.
    """

    database_url: str = DEFAULT_DATABASE_URL
    host: str = "127.0.0.1"
    port: int = 8080
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    admin_token: str | None = None
    join_token: str | None = None
    seal_key: bytes | None = None
    learning_minutes: int = MINUTES_DEFAULT
    retention_days: int = DAYS_DEFAULT
    grace_days: int = GRACE_DEFAULT


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Read ``ALLOTMENT_*``.

    Raises:
        Violation: a variable is wrong; the message says what would be right, and never what a secret was.
    """
    tls_cert_file = _file(environment, "ALLOTMENT_TLS_CERT_FILE")
    tls_key_file = _file(environment, "ALLOTMENT_TLS_KEY_FILE")
    if (tls_cert_file is None) != (tls_key_file is None):
        missing = "ALLOTMENT_TLS_CERT_FILE" if tls_cert_file is None else "ALLOTMENT_TLS_KEY_FILE"
        raise Violation(missing, "is not set although its counterpart is", "both or neither")
    return Settings(
        database_url=_database_url(environment),
        host=environment.get("ALLOTMENT_HOST") or "127.0.0.1",
        port=_port(environment),
        tls_cert_file=tls_cert_file,
        tls_key_file=tls_key_file,
        admin_token=_secret(environment, "ALLOTMENT_ADMIN_TOKEN_FILE"),
        join_token=_secret(environment, "ALLOTMENT_JOIN_TOKEN_FILE"),
        seal_key=_seal_key(environment, "ALLOTMENT_SEAL_KEY_FILE"),
        learning_minutes=_number(environment, "ALLOTMENT_LEARNING_MINUTES", MINUTES_DEFAULT, MINUTES_MIN, MINUTES_MAX),
        retention_days=_number(environment, "ALLOTMENT_RETENTION_DAYS", DAYS_DEFAULT, DAYS_MIN, DAYS_MAX),
        grace_days=_number(environment, "ALLOTMENT_GRACE_DAYS", GRACE_DEFAULT, 1, GRACE_MAX),
    )


def _database_url(environment: Mapping[str, str]) -> str:
    url = environment.get("ALLOTMENT_DATABASE_URL") or DEFAULT_DATABASE_URL
    in_memory = url in {"sqlite://", "sqlite:///", "sqlite:///:memory:"}
    if in_memory or not url.startswith(("sqlite:///", "postgresql://", "postgres://", "postgresql+psycopg://")):
        expected = "sqlite:////absolute/path.db, or postgresql://user:password@host/database"
        raise Violation("ALLOTMENT_DATABASE_URL", "is neither a SQLite file nor a PostgreSQL database", expected)
    return url


def _port(environment: Mapping[str, str]) -> int:
    text = environment.get("ALLOTMENT_PORT") or "8080"
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else -1
    if not 0 <= port <= 65_535:
        raise Violation("ALLOTMENT_PORT", f"is {text!r}", "a whole number, 0 to 65535; 0 takes a free port")
    return port


def _number(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environment.get(name) or str(default)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not least <= number <= most:
        raise Violation(name, f"is {text!r}", f"a whole number, {least} to {most}")
    return number


def _seal_key(environment: Mapping[str, str], name: str) -> bytes | None:
    path = _file(environment, name)
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError:
        raise Violation(name, "cannot be read", "a readable file") from None
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise Violation(name, f"holds {len(key)} bytes", f"{KEY_BYTES_MIN} to {KEY_BYTES_MAX}, drawn at random")
    return key


def _file(environment: Mapping[str, str], name: str) -> Path | None:
    text = environment.get(name)
    if not text:
        return None
    path = Path(text)
    if not path.is_file():
        raise Violation(name, f"is {text!r}, which is no file", "a readable file")
    return path


def _secret(environment: Mapping[str, str], name: str) -> str | None:
    path = _file(environment, name)
    if path is None:
        return None
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise Violation(name, "cannot be read", "a readable text file") from None
