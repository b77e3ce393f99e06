"""The control plane's database is put back to an older copy under running agents: they tell it what it forgot."""

from __future__ import annotations

import shutil
from pathlib import Path


def copy_of(folder: Path, into: Path) -> None:
    """The database as it lies on the disk of a control plane that has stopped."""
    into.mkdir()
    for path in folder.glob("control-plane.db*"):
        shutil.copy(path, into)


def put_back(folder: Path, copy: Path) -> None:
    for path in folder.glob("control-plane.db*"):
        path.unlink()
    for path in copy.iterdir():
        shutil.copy(path, folder)


def test_agents_tell_what_a_restored_database_has_forgotten(own_plane, make_agent, call, wait_until, tmp_path) -> None:
    own_plane.plan("small", ("tokens-a-day", "output_tokens", 10_000, "day"))
    customer = own_plane.customer("small")
    agents = [make_agent(own_plane).start().serves(customer) for _ in range(2)]

    def use(tokens: int) -> None:
        for agent in agents:
            with agent.client() as client:
                for _ in range(5):
                    wait_until("it is allowed", lambda client=client: call(client, customer, tokens).allowed)
            agent.uploaded()

    use(10)
    own_plane.stop()
    copy_of(own_plane.folder, tmp_path / "copy")
    own_plane.start()
    use(20)
    assert own_plane.used(customer) == 300
    own_plane.stop()
    put_back(own_plane.folder, tmp_path / "copy")
    own_plane.start()
    wait_until("every event is there again", lambda: own_plane.used(customer) == 300)
    now, before = own_plane.items("/v1/generations")
    assert (now["cause"], now["learning"], before["cause"]) == ("noticed", True, "made")
    wait_until("both have told all", lambda: own_plane.items("/v1/generations")[0]["agents_missing"] == 0)
    (balance,) = own_plane.get(f"/v1/customers/{customer}/balances")["items"]
    assert balance["used"] >= 300, "at least what was used is charged"
    assert len(own_plane.events(customer)) == 20, "each once"
    for agent in agents:
        assert agent.stop() == 0
    wait_until("what agents held is settled", lambda: own_plane.lent(customer) == 0)
    (balance,) = own_plane.get(f"/v1/customers/{customer}/balances")["items"]
    assert balance["used"] == 300


def test_a_cloned_disk_is_shut_out_and_its_events_are_kept_for_people(plane, make_agent, call, copy_tree) -> None:
    customer = plane.customer()
    agent = make_agent(plane).start().serves(customer)
    with agent.client() as client:
        call(client, customer, 5)
    agent.uploaded()
    agent.kill()
    clone = make_agent(plane, data=agent.folder.with_name(agent.folder.name + "c"))
    copy_tree(agent.data, clone.data)
    agent.start().uploaded()
    clone.spawn()
    assert clone.program.ends() == 75
    assert list(clone.data.glob("agent.db.quarantined-*"))
    (seen,) = [item for item in plane.items("/v1/agents") if item["agent"] == agent.identity()["agent"]]
    (journal,) = [item for item in seen["journals"] if item["state"] == "quarantined"]
    assert "started twice" in journal["why_quarantined"]
    plane.request("POST", f"/v1/agents/{seen['agent']}/journals/{journal['journal']}/write-off", {"reason": "a clone"})
