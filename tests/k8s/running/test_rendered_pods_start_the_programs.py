"""The programs run as the chart says: they become ready, agents enrol, and what the notes advise comes true."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow


def listening_on(port: int) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "service": {"port": port}}


def test_a_daemonsets_agent_waits_for_the_control_plane_on_sqlite_and_enrols(cluster, render, port):
    cluster.apply(render({"controlPlane": listening_on(port)}))
    agent = cluster.run("allotment-agent", "agent")
    sockets = cluster.home / "allotment-agent-0" / "sockets"
    agent.until((sockets / "http.sock").exists, "socket")
    assert not agent.passes("readinessProbe"), "ready before it has ever spoken with a control plane"
    control_plane = cluster.run("allotment-control-plane", "control-plane").is_up()
    agent.is_up()
    (enrolled,) = cluster.ask(f"http://localhost:{port}/v1/agents")["items"]
    assert enrolled["name"] == cluster.node
    assert (cluster.home / "allotment-control-plane-0" / "data" / "control-plane.db").exists()
    assert sorted(path.name for path in sockets.glob("*.sock")) == ["agent.sock", "http.sock"]
    assert agent.stop() == 0, agent.log()
    assert control_plane.stop() == 0, control_plane.log()
    secrets = [token for held in cluster.secrets.values() for token in held.values()]
    assert [token for token in secrets if token in agent.log() + control_plane.log()] == []


def test_a_sidecars_application_is_allowed_after_the_commands_of_the_notes_and_all_of_it_over_tls(
    cluster, chart, render, port, certificate
):
    cluster.secrets["allotment-tls"] = certificate
    values = {
        "controlPlane": listening_on(port),
        "tls": {"enabled": True, "secretName": "allotment-tls"},
        "agent": {"daemonSet": {"enabled": False}},
        "example": {"enabled": True, "everySeconds": 1},
    }
    cluster.apply(render(values))
    cluster.run("allotment-control-plane", "control-plane").is_up()
    cluster.run("allotment-example", "allotment-agent").is_up()
    authority = cluster.home / "allotment-example-0" / "ca" / "ca.crt"
    assert list(authority.parent.iterdir()) == [authority], "an agent sees the key"
    application = cluster.run("allotment-example", "application")
    application.until(lambda: "block: " in application.log(), "first answer")
    notes = chart.render(values, name="allotment", namespace="metering")["allotment/templates/NOTES.txt"]
    cluster.follow(notes, f"localhost:{port}", authority)
    application.until(lambda: "allow: " in application.log(), "allowed call")
    (enrolled,) = cluster.ask(f"https://localhost:{port}/v1/agents", authority)["items"]
    assert enrolled["name"] == cluster.pod
    assert application.stop() == 0


def test_replicas_that_start_together_on_one_postgresql_are_all_ready(
    cluster, render, port, another_port, empty_postgresql_url
):
    cluster.secrets["allotment-database"] = {"url": empty_postgresql_url}
    database = {"kind": "postgresql", "existingSecret": "allotment-database"}
    token = {role: {"existingSecret": f"allotment-{role}-token"} for role in ("admin", "join")}
    cluster.apply(render({}))
    ports = [port, another_port]
    for replica, its_port in enumerate(ports):
        cluster.apply(render({"database": database, "tokens": token, "controlPlane": listening_on(its_port)}))
        cluster.run("allotment-control-plane", "control-plane", replica)
    for replica in cluster.running:
        replica.is_up()
    assert [cluster.ask(f"http://localhost:{each}/v1/agents")["items"] for each in ports] == [[], []]
    assert [replica.stop() for replica in cluster.running] == [0, 0]
