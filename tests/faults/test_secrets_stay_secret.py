"""Tokens: in no log, no answer, no argument, no error; on disk readable by the agent alone."""

from __future__ import annotations

import stat
from pathlib import Path

WRONG = "alt_join_0123456789ab_thisIsNotTheSecretButItIsSecretAllTheSame00"


def test_wrong_join_token_is_refused_without_being_repeated_and_a_right_one_helps(
    plane, make_agent, wait_until
) -> None:
    agent = make_agent(plane, more={"ALLOTMENT_JOIN_TOKEN": WRONG}).start()
    wait_until("it is refused", lambda: "does not take the join token" in agent.program.said())
    assert agent.status().control_plane["state"] == "refused"
    said = agent.program.said() + agent.over_http("GET", "/v1/status").text + plane.program.said()
    assert WRONG.split("_", 3)[3] not in said
    assert not (agent.data / "identity.json").exists()
    agent.stop()
    agent.more = {}
    agent.start()
    wait_until("it joins", (agent.data / "identity.json").exists)


def test_agent_without_any_token_says_which_variable_would_help(plane, make_agent, wait_until) -> None:
    agent = make_agent(plane, more={"ALLOTMENT_JOIN_TOKEN": ""}).start()
    wait_until("it says so", lambda: "ALLOTMENT_JOIN_TOKEN" in agent.program.said())
    assert agent.over_http("GET", "/readyz").status_code == 503
    assert agent.stop() == 0


def test_join_token_may_come_from_a_file_and_is_not_kept(plane, make_agent, wait_until) -> None:
    agent = make_agent(plane)
    agent.folder.mkdir()
    (agent.folder / "token").write_text(plane.join_token + "\n")
    agent.more = {"ALLOTMENT_JOIN_TOKEN": "", "ALLOTMENT_JOIN_TOKEN_FILE": str(agent.folder / "token")}
    agent.start()
    wait_until("it joins", (agent.data / "identity.json").exists)
    secret = plane.join_token.split("_", 3)[3].encode()
    for path in agent.data.iterdir():
        assert secret not in path.read_bytes(), path


def test_everything_on_the_agents_disk_is_the_agents_alone(plane, make_agent, wait_until) -> None:
    agent = make_agent(plane).start()
    wait_until("it joins", (agent.data / "identity.json").exists)
    assert stat.S_IMODE(agent.data.stat().st_mode) == 0o700
    for path in agent.data.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for path in (agent.frames, agent.http):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert b"_" not in Path(f"/proc/{agent.program.pid}/cmdline").read_bytes().split(b"allotment-agent")[-1]
    token = agent.identity()["token"]
    answers = agent.over_http("GET", "/v1/status").text + agent.over_http("GET", "/nope").text
    assert token.split("_", 3)[3] not in answers + agent.program.said()
