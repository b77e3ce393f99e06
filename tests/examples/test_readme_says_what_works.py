"""The README's own lines, run against real programs: its Python, its curl commands, its commands and its links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from examples.quickstart.admin import Admin
from examples.quickstart.fleet import Fleet
from examples.quickstart.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@dataclass
class Stand:
    """A control plane, one agent, and the customer of the README."""

    fleet: Fleet
    admin: Admin

    def used(self, meter: str) -> int:
        return self.admin.usage("acme").get(meter, 0)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        settings = Settings(Path(), 1, 1, 1, f"sqlite:///{folder}/control-plane.db", "", 1, True)
        with Fleet(settings) as fleet:
            fleet.start_control_plane()
            admin = Admin(fleet.url, fleet.token_file.read_text())
            admin.load_catalog()
            admin.subscribe("acme", "enterprise")
            fleet.start_agent(0)
            fleet.wait_for_agent(0)
            yield Stand(fleet, admin)
            admin.close()


def until_used(stand: Stand, meter: str, amount: int) -> None:
    for _ in range(200):
        if stand.used(meter) >= amount:
            break
        httpx.get(f"{stand.fleet.url}/readyz", timeout=5)  # a moment, spent usefully
    assert stand.used(meter) == amount


def test_ten_lines_of_python_meter_a_call(stand: Stand) -> None:
    (code,) = blocks("python")
    asked: list[int] = []

    def create(max_tokens: int) -> SimpleNamespace:
        asked.append(max_tokens)
        return SimpleNamespace(input_tokens=850, output_tokens=200)

    before = stand.used("output_tokens")
    code = code.replace("/run/allotment/agent.sock", stand.fleet.socket_path(0))
    names = {"llm": SimpleNamespace(create=create)}
    exec(compile(code, "README.md", "exec"), names)
    names["client"].close()
    assert asked[0] >= 512
    until_used(stand, "output_tokens", before + 200)


def test_its_python_never_passes_a_limit_even_when_models_write_all_they_may(stand: Stand) -> None:
    (code,) = blocks("python")
    limit = {"key": "tokens", "meter": "output_tokens", "amount": 3_000, "window": "day"}
    headers = {"authorization": f"Bearer {stand.fleet.token_file.read_text()}"}
    plan = {"name": "Tiny", "features": [{"feature": "chat"}], "limits": [limit]}
    httpx.put(f"{stand.fleet.url}/v1/plans/tiny", json=plan, headers=headers).raise_for_status()
    stand.admin.subscribe("tight", "tiny")
    code = code.replace("/run/allotment/agent.sock", stand.fleet.socket_path(0)).replace('"acme"', '"tight"')
    written: list[int] = []

    def create(max_tokens: int) -> SimpleNamespace:
        written.append(max_tokens)
        return SimpleNamespace(input_tokens=1, output_tokens=max_tokens)

    def caller(_: int) -> None:
        names = {"llm": SimpleNamespace(create=create), "print": lambda *_: None}
        exec(compile(code, "README.md", "exec"), names)
        names["client"].close()

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(caller, range(16)))
    assert 0 < sum(written) <= 3_000


def test_ten_lines_of_curl_reserve_settle_and_show_what_is_left(stand: Stand) -> None:
    (code,) = [block for block in blocks("sh") if "--unix-socket" in block]
    socket_path = str(stand.fleet.socket_dir(0) / "http.sock")
    before = stand.used("output_tokens")
    commands = re.findall(r"^curl [^\n]*(?:\n  [^\n]*)*", code, re.MULTILINE)
    assert len(commands) == 3
    answers = [as_curl_would(command.replace("$socket", socket_path)) for command in commands]
    assert [answer.status_code for answer in answers] == [200, 200, 200], [answer.text for answer in answers]
    assert answers[0].json()["decision"] == "allow"
    assert answers[1].json()["amounts"] == {"requests": 1, "input_tokens": 874 + 512, "output_tokens": 230}
    assert {limit["limit"] for limit in answers[2].json()["limits"]} >= {"input-tokens-a-day"}
    until_used(stand, "output_tokens", before + 230)


def as_curl_would(command: str) -> httpx.Response:
    words = shlex.split(command)
    path = words[words.index("--unix-socket") + 1]
    (url,) = [word for word in words if word.startswith("http://")]
    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
        if "--json" not in words:
            return client.get(url)
        body = words[words.index("--json") + 1]
        return client.post(url, content=body, headers={"content-type": "application/json"})


def test_commands_it_names_exist() -> None:
    made = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", README)) <= made


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
