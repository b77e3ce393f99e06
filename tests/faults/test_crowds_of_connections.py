"""A real agent before crowds: thousands that say nothing, storms, too few open files; those who ask are served."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import msgpack
import pytest

from allotment import AllotmentError

STATUS = len(body := msgpack.packb({"op": "status", "id": 1})).to_bytes(4, "big") + body
IDLE = 10_000
SPARE_FILES = 200


def files_allowed() -> int:
    """Raise the limit of this process as far as it goes."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = IDLE + SPARE_FILES
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def rss_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def cpu_ticks(pid: int) -> int:
    """Hundredths of a second on a processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def connect(path: Path, stack: contextlib.ExitStack) -> socket.socket:
    line = stack.enter_context(socket.socket(socket.AF_UNIX))
    line.settimeout(10)
    line.connect(str(path))
    return line


def asks(line: socket.socket) -> bool:
    """Whether a status is answered on this line."""
    line.sendall(STATUS)
    return len(line.recv(65_536)) > 200


def test_ten_thousand_idle_connections_cost_little_and_nobody_who_asks_notices(
    no_plane, make_agent, wait_until
) -> None:
    """As many as this machine lets one process open: ten thousand, unless its hard limit is lower."""
    many = min(IDLE, files_allowed() - SPARE_FILES)
    agent = make_agent(no_plane).start()
    before = rss_kib(agent.program.pid)
    with contextlib.ExitStack() as stack:
        crowd = [connect(agent.frames if number % 2 else agent.http, stack) for number in range(many)]
        wait_until("all are accepted", lambda: agent.status().connections > many)
        with agent.client() as client:
            started = time.monotonic()
            for _ in range(100):
                client.status()
            each_ms = (time.monotonic() - started) * 10
        assert each_ms < 20
        assert (rss_kib(agent.program.pid) - before) / many < 8, "KiB for each"
        assert asks(crowd[1])
    wait_until("they have gone", lambda: agent.status().connections == 1)


def test_storm_of_connections_that_come_ask_and_go_is_served(no_plane, make_agent, wait_until) -> None:
    agent = make_agent(no_plane).start()
    for _ in range(1_000):
        with contextlib.ExitStack() as stack:
            line = connect(agent.frames, stack)
            line.send(STATUS[:7])
    with contextlib.ExitStack() as stack:
        assert all(asks(connect(agent.frames, stack)) for _ in range(200))
    wait_until("nothing is left", lambda: agent.status().connections == 1)


def test_agent_with_few_open_files_keeps_some_for_itself_and_says_busy(plane, make_agent, call) -> None:
    limit = 80
    customer = plane.customer()

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    agent = make_agent(plane, before=few).start().serves(customer)
    assert f"the limit of open files allows {limit - 48} connections" in agent.program.said()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(agent.client())
        client.status()
        crowd = [connect(agent.frames, stack) for _ in range(200)]
        answers = [msgpack.unpackb(data[4:]) for line in crowd[-50:] if (data := line.recv(65_536))]
        assert {answer["error"]["code"] for answer in answers} == {"overloaded"}
        assert call(client, customer, 3).allowed, "the first who came is served, to the disk and to the control plane"
        agent_events = client.status()
        assert agent_events.connections <= limit - 48
    agent.uploaded()
    assert plane.used(customer) == 3


def test_agent_that_runs_out_of_open_files_rests_goes_on_and_recovers(no_plane, make_agent, wait_until) -> None:
    agent = make_agent(no_plane).start()
    used = len(list(Path(f"/proc/{agent.program.pid}/fd").iterdir()))
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(agent.client())
        client.status()
        resource.prlimit(agent.program.pid, resource.RLIMIT_NOFILE, (used + 5, used + 5))
        for _ in range(50):
            connect(agent.frames, stack)
        for _ in range(20):
            client.status()
        wait_until("it has said so", lambda: "cannot accept connections for now" in agent.program.said(), 5)
        spent = cpu_ticks(agent.program.pid)
        started = time.monotonic()
        wait_until("half a second has passed", lambda: time.monotonic() - started > 0.5)
        assert cpu_ticks(agent.program.pid) - spent < 25, "it does not spin on the same refusal"
    started = time.monotonic()
    wait_until("it accepts again", lambda: agent.status().connections == 1, 10)
    assert time.monotonic() - started < 5
    assert agent.program.said().count("cannot accept connections") == 1, "no flood of lines"


@pytest.mark.parametrize(
    "opening", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x00\x04\x00\x00" + b"x" * 1_000]
)
def test_noise_on_a_real_socket_disturbs_nobody(no_plane, make_agent, opening) -> None:
    agent = make_agent(no_plane).start()
    with contextlib.ExitStack() as stack, agent.client() as client:
        lines = [connect(path, stack) for path in (agent.frames, agent.http) for _ in range(20)]
        for line in lines:
            line.sendall(opening)
        assert client.status().state == "starting"
        assert agent.over_http("GET", "/healthz").status_code == 200
    assert agent.program.alive


def test_caller_killed_while_its_call_waits_holds_nothing(own_plane, make_agent, wait_until) -> None:
    customer = own_plane.customer()
    agent = make_agent(own_plane).start()
    own_plane.program.process.send_signal(19)  # SIGSTOP: it neither answers nor refuses
    body = msgpack.packb(
        {
            "op": "reserve",
            "id": 1,
            "reservation": "r1",
            "deadline_ms": 20_000,
            "call": {"customer": customer, "feature": "chat"},
        }
    )
    with contextlib.ExitStack() as stack:
        connect(agent.frames, stack).sendall(len(body).to_bytes(4, "big") + body)
        wait_until("the call waits", lambda: agent.status().counters["waiting"] == 1)
    own_plane.program.process.send_signal(18)  # SIGCONT
    wait_until("it waits no longer", lambda: agent.status().counters["waiting"] == 0)
    assert agent.status().reservations == 0


def test_curl_and_httpx_use_the_socket_as_documented(plane, make_agent, free_port) -> None:
    customer = plane.customer()
    agent = make_agent(plane, more={"ALLOTMENT_HTTP_PORT": str(free_port)}).start().serves(customer)
    call = {"customer": customer, "feature": "chat"}
    reserved = agent.over_http(
        "POST", "/v1/reserve", {"reservation": "r1", "call": call, "amounts": {"output_tokens": 7}}
    )
    assert (reserved.status_code, reserved.json()["decision"]) == (200, "allow")
    settled = agent.over_http("POST", "/v1/settle", {"reservation": "r1", "tokens": {"input": 3, "output": 5}})
    assert settled.json()["amounts"] == {"requests": 1, "input_tokens": 3, "output_tokens": 5}
    over_tcp = httpx.post(f"http://127.0.0.1:{free_port}/v1/check", json={"call": call}, timeout=10)
    assert over_tcp.json()["has_access"] is True
    assert (
        httpx.get(f"http://127.0.0.1:{free_port}/v1/status", headers={"host": "evil.example"}, timeout=10).status_code
        == 421
    )
    assert agent.over_http("HEAD", "/readyz").status_code == 200
    usage = agent.over_http("GET", f"/v1/usage?customer={customer}").json()
    assert {state["limit"] for state in usage["limits"]} == {"tokens-a-day", "requests-a-month"}
    if curl := shutil.which("curl"):
        asked = [curl, "-sS", "--max-time", "10", "--unix-socket", str(agent.http)]
        body = json.dumps({"call": call})
        said = subprocess.run(
            [*asked, "-d", body, "http://localhost/v1/check"], capture_output=True, text=True, check=True
        )
        assert '"decision":"allow"' in said.stdout
        status = ["-o", "/dev/null", "-w", "%{http_code}"]
        huge = agent.folder / "huge"
        huge.write_bytes(b" " * 3_000_000)
        for more, code in (
            (["--http2", "http://localhost/v1/status"], "200"),
            (["-I", "http://localhost/healthz"], "200"),
            (["--data-binary", f"@{huge}", "http://localhost/v1/check"], "413"),
            (["-H", "transfer-encoding: chunked", "--data-binary", f"@{huge}", "http://localhost/v1/check"], "413"),
            (["-X", "PUT", "http://localhost/v1/check"], "405"),
            (["http://localhost/nope"], "404"),
        ):
            said = subprocess.run([*asked, *status, *more], capture_output=True, text=True, check=False)
            assert said.stdout == code, (more, said)
    with contextlib.suppress(AllotmentError):
        agent.uploaded()


def test_health_probe_tells_an_agent_that_can_decide_from_one_that_cannot_and_from_none(
    plane, no_plane, make_agent, wait_until
) -> None:
    def probe(agent, *more: str) -> tuple[int, str]:
        command = [*agent.program.command, "health", *more]
        done = subprocess.run(
            command, env={**agent.program.environment}, capture_output=True, text=True, check=False, timeout=10
        )
        return done.returncode, done.stderr

    good, alone = make_agent(plane).start(), make_agent(no_plane).start()
    wait_until("it is ready", lambda: probe(good)[0] == 0)
    assert probe(alone)[0] == 69
    assert probe(alone, "--alive")[0] == 0
    alone.kill()
    status, said = probe(alone, "--alive")
    assert status == 69
    assert "no agent answers" in said
