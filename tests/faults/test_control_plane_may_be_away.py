"""The control plane absent, gone, back, or telling nonsense: what was leased goes on, and every event arrives once."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import trustme

from allotment import AgentUnavailable


def test_killed_agent_goes_on_with_its_leases_while_the_control_plane_is_dead(
    own_plane, make_agent, wait_until, call
) -> None:
    customer = own_plane.customer()
    agent = make_agent(own_plane).start().serves(customer)
    with agent.client() as client:
        for _ in range(40):  # a host's first leases double; by then one is larger than what the journal runs ahead
            assert call(client, customer, 5).allowed
        own_plane.stop()
        agent.kill()
        agent.start()
        served = 0
        for _ in range(10):
            served += call(client, customer, 1).allowed
        assert served == 10, "within what was leased before"
        status = client.status()
        assert status.boot == 2
        assert status.outbox_events > 0
        wait_until("it says that nobody answers", lambda: client.status().control_plane["state"] == "down")
        assert agent.over_http("GET", "/readyz").status_code == 200
        own_plane.start()
        agent.uploaded()
    assert own_plane.used(customer) == 210
    events = [event["event"] for event in own_plane.events(customer)]
    assert len(events) == len(set(events)) == 50


def test_new_agent_without_a_control_plane_refuses_quickly_and_joins_when_there_is_one(
    own_plane, make_agent, wait_until
) -> None:
    customer = own_plane.customer()
    own_plane.stop()
    agent = make_agent(own_plane, more={"PYTHONPROFILEIMPORTTIME": "1"}).start()
    with agent.client() as client:
        wait_until("it has tried", lambda: client.status().control_plane["state"] == "down")
        started = time.monotonic()
        decision = client.reserve(customer, "chat")
        assert time.monotonic() - started < 1.0, "nobody is kept waiting for what is known to be away"
        assert (decision.allowed, decision.code) == (False, "lease_unavailable")
        assert decision.retry_after_ms
        recorded = client.record(customer, "chat", event="first", amounts={"output_tokens": 2})
        assert recorded.event == "first"
        assert agent.over_http("GET", "/readyz").status_code == 503
        assert agent.over_http("GET", "/healthz").status_code == 200
        own_plane.start()
        wait_until("it joins and serves", lambda: client.reserve(customer, "chat").allowed)
    agent.uploaded()
    assert "first" in {event["event"] for event in own_plane.events(customer)}
    starting, _, serving = agent.program.said().partition("serving on")
    assert "import time:" in starting
    assert "import time:" not in serving, "once it serves, it needs no file to be free for a module"


def test_events_of_an_outage_arrive_once_the_first_included(own_plane, make_agent, wait_until) -> None:
    customer = own_plane.customer()
    agent = make_agent(own_plane).start().serves(customer)
    own_plane.stop()
    with agent.client() as client:
        for number in range(300):
            client.record(customer, "chat", event=f"e{number}", amounts={"output_tokens": 1})
        agent.kill()
        agent.start()
        for number in range(250, 350):
            client.record(customer, "chat", event=f"e{number}", amounts={"output_tokens": 1})
    own_plane.start()
    agent.uploaded()
    found = [event["event"] for event in own_plane.events(customer)]
    assert sorted(found) == sorted(f"e{number}" for number in range(350))
    assert own_plane.used(customer) == 350
    assert own_plane.items("/v1/event-conflicts") == []


def test_event_of_a_customer_whom_nobody_knows_is_kept_and_disturbs_no_other(own_plane, make_agent) -> None:
    customer = own_plane.customer()
    agent = make_agent(own_plane).start().serves(customer)
    own_plane.stop()
    with agent.client() as client:
        client.check(customer, "chat")
        client.record("customer-unheard-of", "chat", event="lost-one", timeout_s=15)
        client.record(customer, "chat", event="good-one", amounts={"output_tokens": 3})
    own_plane.start()
    agent.uploaded()
    assert own_plane.used(customer) == 3
    (conflict,) = own_plane.items("/v1/event-conflicts")
    assert (conflict["event"], conflict["code"]) == ("lost-one", "unknown_customer")


class Liar(http.server.BaseHTTPRequestHandler):
    """A control plane that answers everything with ``said``: status, headers, body."""

    said: tuple[int, dict[str, str], bytes] = (200, {}, b"")

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        status, headers, body = self.said
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture
def lie(own_plane) -> Iterator[Callable[..., None]]:
    """Puts a liar in the place of the control plane."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def begin(status: int, headers: dict[str, str], body: bytes) -> None:
        Liar.said = (status, headers, body)
        if not servers:
            own_plane.stop()
            servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", own_plane.port), Liar))
            threading.Thread(target=servers[0].serve_forever, args=(0.05,), daemon=True).start()

    def end() -> None:
        for server in servers:
            server.shutdown()
            server.server_close()
        servers.clear()

    begin.end = end
    yield begin
    end()


def test_an_agent_speaks_tls_with_whom_its_ca_vouches_for_and_says_why_with_nobody_else(
    no_plane, make_agent, wait_until, tmp_path
) -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ca.pem")
    Liar.said = (401, {}, b'{"code":"unauthenticated","detail":"that was heard"}')
    for ca, expected in ((ours, "that was heard"), (theirs, "CERTIFICATE_VERIFY_FAILED")):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost").configure_cert(context)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            more = {
                "ALLOTMENT_CONTROL_PLANE_URL": f"https://localhost:{server.server_port}",
                "ALLOTMENT_CA_FILE": str(tmp_path / "ca.pem"),
            }
            agent = make_agent(no_plane, more=more).start()
            wait_until(
                expected, lambda agent=agent, said=expected: said in (agent.status().control_plane["error"] or "")
            )
            agent.kill()
            server.shutdown()


LIES = {
    "a proxy's page": (200, {"content-type": "text/html"}, b"<html>Sign in</html>"),
    "a fault": (500, {}, b"oops"),
    "a body shorter than said": (200, {"content-length": "1000", "connection": "close"}, b"x"),
}


def test_nonsense_from_the_control_plane_changes_nothing_and_is_survived(
    own_plane, make_agent, wait_until, lie
) -> None:
    customer = own_plane.customer()
    agent = make_agent(own_plane).start().serves(customer)
    with agent.client() as client:
        client.record(customer, "chat", event="before", amounts={"output_tokens": 1})
        agent.uploaded()
        for name, (status, headers, body) in LIES.items():
            lie(status, headers, body)
            failures = client.status().counters["sync_failures"]
            client.record(customer, "chat", event=f"during-{failures}", amounts={"output_tokens": 1})
            wait_until(f"it has met {name}", lambda failed=failures: client.status().counters["sync_failures"] > failed)
            started = time.monotonic()
            client.check(customer, "chat", amounts={"output_tokens": 1})
            assert time.monotonic() - started < 1.0, name
            assert client.status().outbox_events >= 1, name
        lie.end()
        own_plane.start()
        agent.uploaded()
    assert own_plane.used(customer) == len(own_plane.events(customer)) >= 2
    assert agent.program.alive
    with contextlib.suppress(AgentUnavailable), agent.client() as client:
        assert client.status().boot == 1
