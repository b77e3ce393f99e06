"""The real program, served on a port of its own, for clients that nobody here wrote."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Served:
    """Where it listens, and an admin's token."""

    url: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    """A control plane in a process of its own."""
    token = f"alt_admin_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
    (tmp_path / "admin.token").write_text(token)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ALLOTMENT_")}
    settings = {
        "ALLOTMENT_DATABASE_URL": database_url,
        "ALLOTMENT_PORT": "0",
        "ALLOTMENT_ADMIN_TOKEN_FILE": str(tmp_path / "admin.token"),
        "PYTHONUNBUFFERED": "1",
    }
    log = tmp_path / "control-plane.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "control_plane", "serve"],
            cwd=ROOT,
            env={**kept, **settings},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        greeting = process.stdout.readline()
        found = re.search(r"https?://\S+:\d+", greeting)
        assert found, (greeting, log.read_text())
        yield Served(found.group(), token)
    finally:
        process.terminate()
        process.wait(timeout=30)
        process.stdout.close()
    assert "Traceback" not in log.read_text()
