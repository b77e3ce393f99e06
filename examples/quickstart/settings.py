"""What may be set, as environment variables, and the defaults."""

from __future__ import annotations

import os
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
STATE = Path("var/quickstart")


@dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
        speed: how many times faster than it happened the trace is replayed.
        prefix: begins the name of every customer; unique where the database outlives the run.
        once: exit after the audit instead of staying up.
    """

    trace: Path
    speed: float
    customers: int
    agents: int
    database_url: str
    prefix: str
    seed: int
    once: bool


def from_environment() -> Settings:
    """Read TRACE, SPEED, CUSTOMERS, AGENTS, DATABASE_URL, SEED and ONCE."""
    database_url = os.environ.get("DATABASE_URL", "")
    return Settings(
        trace=Path(os.environ.get("TRACE") or HERE / "trace.csv.gz"),
        speed=float(_number("SPEED", "80", float)),
        customers=int(_number("CUSTOMERS", "40", int)),
        agents=int(_number("AGENTS", "3", int)),
        database_url=database_url or f"sqlite:///{(STATE / 'control-plane.db').resolve()}",
        prefix=f"run-{secrets.token_hex(3)}-" if database_url else "",
        seed=int(_number("SEED", "7", int)),
        once=os.environ.get("ONCE", "") not in ("", "0"),
    )


def _number(name: str, default: str, kind: type[int] | type[float]) -> float:
    text = os.environ.get(name) or default
    try:
        value = kind(text)
    except ValueError:
        value = kind(0)
    if not 0 < value < 100_000:
        sys.exit(
            f"{name} is {text!r}; expected a {'whole ' if kind is int else ''}number above 0, for instance {default}"
        )
    return value
