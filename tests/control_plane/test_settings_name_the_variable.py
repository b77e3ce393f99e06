"""Settings: what is wrong is said with the name of the variable, and secrets are never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.settings import DEFAULT_DATABASE_URL, from_environment
from protocol.violations import Violation


def test_nothing_needs_to_be_set() -> None:
    settings = from_environment({})
    assert (settings.database_url, settings.host, settings.port) == (DEFAULT_DATABASE_URL, "127.0.0.1", 8080)
    assert (settings.tls_cert_file, settings.admin_token, settings.join_token) == (None, None, None)


def test_everything_can_be_set(tmp_path: Path) -> None:
    for name in ("cert", "key", "admin", "join"):
        (tmp_path / name).write_text(f" {name}\n")
    (tmp_path / "seal").write_text("s" * 32 + "\n")
    settings = from_environment(
        {
            "ALLOTMENT_DATABASE_URL": "postgresql://u:p@h/d",
            "ALLOTMENT_HOST": "::",
            "ALLOTMENT_PORT": "0",
            "ALLOTMENT_RETENTION_DAYS": "90",
            "ALLOTMENT_TLS_CERT_FILE": str(tmp_path / "cert"),
            "ALLOTMENT_TLS_KEY_FILE": str(tmp_path / "key"),
            "ALLOTMENT_ADMIN_TOKEN_FILE": str(tmp_path / "admin"),
            "ALLOTMENT_JOIN_TOKEN_FILE": str(tmp_path / "join"),
            "ALLOTMENT_SEAL_KEY_FILE": str(tmp_path / "seal"),
            "ALLOTMENT_LEARNING_MINUTES": "30",
        }
    )
    assert (settings.host, settings.port, settings.retention_days) == ("::", 0, 90)
    assert (settings.admin_token, settings.join_token) == ("admin", "join")
    assert (settings.seal_key, settings.learning_minutes) == (b"s" * 32, 30)


def test_a_short_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "seal").write_text("s3cret")
    with pytest.raises(Violation, match="ALLOTMENT_SEAL_KEY_FILE") as caught:
        from_environment({"ALLOTMENT_SEAL_KEY_FILE": str(tmp_path / "seal")})
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALLOTMENT_DATABASE_URL", "mysql://u:s3cret@h/d"),
        ("ALLOTMENT_DATABASE_URL", "sqlite://"),
        ("ALLOTMENT_DATABASE_URL", "sqlite:///:memory:"),
        ("ALLOTMENT_GRACE_DAYS", "0"),
        ("ALLOTMENT_GRACE_DAYS", "41"),
        ("ALLOTMENT_RETENTION_DAYS", "44"),
        ("ALLOTMENT_RETENTION_DAYS", "for ever"),
        ("ALLOTMENT_PORT", "http"),
        ("ALLOTMENT_PORT", "-1"),
        ("ALLOTMENT_PORT", "65536"),
        ("ALLOTMENT_PORT", "8080 "),
        ("ALLOTMENT_ADMIN_TOKEN_FILE", "/nowhere"),
        ("ALLOTMENT_TLS_CERT_FILE", "/nowhere"),
        ("ALLOTMENT_SEAL_KEY_FILE", "/nowhere"),
        ("ALLOTMENT_LEARNING_MINUTES", "1"),
        ("ALLOTMENT_LEARNING_MINUTES", "1441"),
        ("ALLOTMENT_LEARNING_MINUTES", "ten"),
    ],
)
def test_a_wrong_value_is_said_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(Violation, match=name) as caught:
        from_environment({name: value})
    assert "s3cret" not in caught.value.message


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cert").write_text("x")
    with pytest.raises(Violation, match="ALLOTMENT_TLS_KEY_FILE"):
        from_environment({"ALLOTMENT_TLS_CERT_FILE": str(tmp_path / "cert")})
