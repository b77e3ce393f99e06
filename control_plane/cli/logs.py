"""Logs for machines: one JSON object a line on standard error, and never a token in one."""

from __future__ import annotations

import json
import logging
import re

from protocol.instants import rfc3339

_TOKEN = re.compile(r"(alt_(?:admin|support|agent|join)_[0-9a-f]{12})_[A-Za-z0-9_-]{1,43}")
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^@/\s]+@")


class JsonLines(logging.Formatter):
    """Formats a record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """When, how grave, who says it, what; and the traceback of a fault of ours."""
        line = {
            "at": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str))


def redact(text: str) -> str:
    """The text without the secrets of tokens and database URLs that somebody put where they do not belong."""
    return _PASSWORD.sub(r"\1***@", _TOKEN.sub(r"\1_***", text))


def configure() -> None:
    """Warnings and worse of everybody; of ourselves also what is worth knowing."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("allotment").setLevel(logging.INFO)
