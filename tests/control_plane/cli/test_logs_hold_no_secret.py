"""Whatever is logged, the secret halves of tokens and the passwords of databases are not."""

from __future__ import annotations

import json
import logging

from control_plane.cli.logs import JsonLines, redact

SECRET = "aB3_" + "-" * 39
TOKEN = f"alt_admin_0123456789ab_{SECRET}"


def line(record: logging.LogRecord) -> str:
    return JsonLines().format(record)


def test_a_token_in_a_message_loses_its_secret_and_keeps_its_name() -> None:
    record = logging.LogRecord("allotment", logging.INFO, "", 0, "GET /v1/tokens/%s", (TOKEN,), None)
    assert json.loads(line(record))["message"] == "GET /v1/tokens/alt_admin_0123456789ab_***"


def test_a_token_in_a_field_or_a_traceback_loses_its_secret() -> None:
    try:
        raise ValueError(TOKEN)
    except ValueError as error:
        fault = (ValueError, error, error.__traceback__)
        record = logging.LogRecord("allotment", logging.ERROR, "", 0, "fault", None, fault)
    record.fields = {"path": f"/{TOKEN}"}
    written = line(record)
    assert SECRET not in written
    assert "0123456789ab_***" in json.loads(written)["traceback"]
    assert "\n" not in written


def test_a_password_in_a_url_is_left_out() -> None:
    said = redact("cannot reach postgresql://meter:s3cr:et@db.example/allotment")
    assert said == "cannot reach postgresql://meter:***@db.example/allotment"
