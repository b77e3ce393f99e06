"""Two agents where only one may be: the second says so, with what to change, and the first notices nothing."""

from __future__ import annotations

EX_IOERR = 74
EX_TEMPFAIL = 75


def test_second_agent_on_a_data_directory_names_the_first_and_exits(no_plane, make_agent) -> None:
    first = make_agent(no_plane).start()
    second = make_agent(no_plane, data=first.data).spawn()
    assert second.program.ends() == EX_TEMPFAIL
    said = second.program.said()
    assert f"another agent (process {first.program.pid}) already runs on {first.data}" in said
    assert "ALLOTMENT_DATA_DIR" in said
    assert first.status().boot == 1
    first.kill()
    assert second.start().status().boot == 2, "a lock does not outlive its holder"


def test_second_agent_on_a_socket_directory_exits_and_the_first_keeps_its_sockets(no_plane, make_agent) -> None:
    first = make_agent(no_plane).start()
    second = make_agent(no_plane, sockets=first.sockets).spawn()
    assert second.program.ends() == EX_TEMPFAIL
    assert f"another agent answers on {first.http}" in second.program.said()
    assert first.status().agent == first.name
    first.kill()
    assert second.start().status().agent == second.name, "what a dead agent left is replaced"


def test_second_agent_on_an_http_port_exits_and_names_the_variable(no_plane, make_agent, free_port) -> None:
    port = {"ALLOTMENT_HTTP_PORT": str(free_port)}
    make_agent(no_plane, more=port).start()
    second = make_agent(no_plane, more=port).spawn()
    assert second.program.ends() == EX_TEMPFAIL
    assert f"port {free_port} cannot be had" in second.program.said()
    assert "ALLOTMENT_HTTP_PORT" in second.program.said()


def test_directory_that_cannot_be_used_is_said_by_the_name_of_its_variable(no_plane, make_agent) -> None:
    agent = make_agent(no_plane)
    agent.folder.mkdir()
    agent.data.write_text("a file where the directory should be")
    agent.spawn()
    assert agent.program.ends() == 78
    assert f"ALLOTMENT_DATA_DIR: names {agent.data}" in agent.program.said()
    assert "Traceback" not in agent.program.said()


def test_wrong_configuration_names_the_variable_and_exits(no_plane, make_agent) -> None:
    for name, value in (
        ("ALLOTMENT_CONTROL_PLANE_URL", "ftp://x"),
        ("ALLOTMENT_HTTP_PORT", "eighty"),
        ("ALLOTMENT_CA_FILE", "/nowhere/ca.pem"),
    ):
        agent = make_agent(no_plane, more={name: value}).spawn()
        assert agent.program.ends() == 78
        assert name in agent.program.said()
        assert len(agent.program.said().splitlines()) == 1
