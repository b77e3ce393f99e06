"""docs/proxies.md, held to what there is: its commands are run, its headers and folders are those of the product."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.asking import EXAMPLES, KINDS
from tests.faults.programs import NO_TLS, Agent, ControlPlane

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "proxies.md").read_text()


@pytest.fixture(scope="module")
def agent(run: Any, plane: ControlPlane) -> Iterator[Agent]:
    number = secrets.token_hex(3)
    one = Agent(run.root / number, plane, f"agent-{number}")
    run.agents.append(one)
    try:
        yield one.start()
    finally:
        one.kill()


def as_curl_would(command: str, socket: Path) -> httpx.Response:
    words = shlex.split(command)
    after = {word: words[at + 1] for at, word in enumerate(words[:-1])}
    headers = [words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H"]
    (url,) = [word for word in words if word.startswith("http://")]
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket), verify=NO_TLS)) as client:
        headers.append(["content-type", "application/json"])
        return client.post(url, content=after["--json"], headers=headers)


def test_its_commands_ask_and_settle(agent: Agent, plane: ControlPlane) -> None:
    customer = plane.customer()
    agent.serves(customer)
    ask, settle = re.findall(r"^curl [^\n]*(?:\n  [^\n]*)*", PAGE, re.MULTILINE)
    asked = as_curl_would(ask.replace("acme", customer).replace("\\\n", " "), agent.http)
    assert asked.status_code == 200
    name = asked.headers["x-allotment-reservation"]
    settled = as_curl_would(settle.replace("$reservation", name).replace("\\\n", " "), agent.http)
    assert settled.json()["amounts"] == {"requests": 1, "input_tokens": 9, "output_tokens": 12}


def test_it_names_every_header_there_is_and_no_other() -> None:
    source = "".join((ROOT / "agent" / "core" / name).read_text() for name in ("passing.py", "problem_details.py"))
    known = set(re.findall(r'_(?:said|number)\(headers, "([a-z-]+)"', source))
    known |= set(re.findall(r'b"x-allotment-([a-z-]+)"', source))
    known |= {"customer", "feature", "user", "workspace", "role", "tags"}
    assert set(re.findall(r"`x-allotment-([a-z-]+)", PAGE)) == known


def test_each_folder_of_examples_has_a_row_and_is_started() -> None:
    rows = {Path(target).parent.name for target in re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", PAGE, re.MULTILINE)}
    assert rows == {kind.name for kind in KINDS} | {"traefik"}
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    assert all((EXAMPLES / name).is_dir() for name in rows)
