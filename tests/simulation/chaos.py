"""What strikes when: for every kind of fault of this seed a loop that draws its moment and its victim."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import trio

from tests.simulation.contracts import changed
from tests.simulation.faults import Blow, Fuse, kindled
from tests.simulation.hosts import Host
from tests.simulation.rates import PUT_BACK, STRIKES

if TYPE_CHECKING:
    from tests.simulation.world import World

T = TypeVar("T")
Strike = Callable[[], Awaitable[None]]
KILLS = (Blow.BEFORE_STATEMENT, Blow.AFTER_COMMIT, Blow.AFTER_STATEMENT, Blow.BEFORE_COMMIT)
TERM_S = 60.0


class Chaos:
    """One world's."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._dice = dice
        self._strikes: dict[str, Strike] = {
            "kill an agent": self._kill_agent,
            "kill an agent at its disk": self._kill_at_disk,
            "fsync fails": self._fail_fsync,
            "disk full": self._fill_disk,
            "disk slow": self._slow_disk,
            "kill a replica": self._kill_replica,
            "kill a replica at a statement": self._kill_at_statement,
            "control plane down": self._control_plane_down,
            "database away": self._database_away,
            "partition": self._partition,
            "pause": self._pause,
            "wall clock step": self._step_clock,
            "machine reboot": self._reboot,
            "plan change": self._change_plan,
            "status change": self._change_status,
            "revoke an agent": self._revoke,
            "stop an agent": self._stop,
            "new disk": self._new_disk,
            "new machine": self._new_machine,
            "disk rolled back": self._roll_back,
            "disk cloned": self._clone,
            PUT_BACK: self._put_back,
        }
        self._turns: dict[str, int] = {}
        assert set(self._strikes) == {*STRIKES, PUT_BACK}

    async def storm(self) -> None:
        """Strike until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)  # where nothing strikes, too
            for kind, every_s in self._world.rates.every.items():
                nursery.start_soon(self._again_and_again, kind, every_s)

    async def _again_and_again(self, kind: str, every_s: float) -> None:
        while True:
            await trio.sleep(self._dice.expovariate(1 / every_s))
            self._world.chronicle.note(f"chaos: {kind}")
            self._world.chronicle.numbers[kind] += 1
            await self._strikes[kind]()

    def _host(self) -> Host:
        """A victim; mostly one that has something to lose."""
        busy = [host for host in self._world.hosts if self._in_use(host)]
        return self._dice.choice(busy if busy and self._dice.random() < 0.8 else self._world.hosts)

    def _in_turn(self, kind: str, variants: Sequence[T]) -> T:
        """Every variant of a fault gets its turn, from one that is drawn on."""
        turn = self._turns.setdefault(kind, self._dice.randrange(len(variants)))
        self._turns[kind] += 1
        return variants[turn % len(variants)]

    def _a_while_s(self, most_s: float, least_s: float = 0.5) -> float:
        """For how long something lasts: no longer than most of the storm."""
        return self._dice.uniform(least_s, max(least_s, min(most_s, 0.7 * self._world.rates.storm_s)))

    def _happened(self, fault: str, hit: str) -> None:
        self._world.chronicle.happened(fault, hit)

    # Agents and their disks.

    async def _kill_agent(self) -> None:
        for host in self._dice.sample(self._world.hosts, min(self._dice.randint(1, 2), len(self._world.hosts))):
            host.kill()

    async def _kill_at_disk(self) -> None:
        blow = self._in_turn("at disk", KILLS)
        slow = [host for host in self._world.hosts if host.disk.slow_s]  # there a commit is under way for long
        host = self._dice.choice(slow) if slow else self._host()
        fresh = Fuse(blow, self._dice.randint(1, 12 if "statement" in blow else 3))
        host.disk.fuse = kindled(host.disk.fuse, fresh)

    async def _fail_fsync(self) -> None:
        blow = self._in_turn("fsync", (Blow.IO_ERROR, Blow.IO_ERROR_WRITTEN))
        disk = self._host().disk
        disk.fuse = kindled(disk.fuse, Fuse(blow, self._dice.randint(1, 4)))

    async def _fill_disk(self) -> None:
        host = self._host()
        host.disk.full = True
        await trio.sleep(self._a_while_s(20))
        host.disk.full = False

    async def _slow_disk(self) -> None:
        host = self._host()
        host.disk.slow_s = self._dice.uniform(0.1, 3)
        await trio.sleep(self._a_while_s(20))
        host.disk.slow_s = 0.0

    async def _reboot(self) -> None:
        host = self._host()
        async with host.being_repaired:
            await self._reboot_of(host)

    async def _reboot_of(self, host: Host) -> None:
        if host.agent is not None and host.agent.books.leases:
            self._happened("machine rebooted", "leases held")
        host.kill()
        await host.until_down()
        host.clock.reboot()

    async def _stop(self) -> None:
        host = self._host()
        if host.agent is None or host.standing:
            return
        if host.agent.books.leases:
            self._happened("graceful stop", "leases held")
        host.stop()
        with trio.move_on_after(20):
            await host.until_down()

    async def _new_disk(self) -> None:
        host = self._host()
        async with host.being_repaired:
            await self._new_disk_of(host)

    async def _new_disk_of(self, host: Host) -> None:
        held = self._in_use(host)
        host.held_down = True
        host.kill()
        await host.until_down()
        self._world.lose(host)
        host.disk.keep_identity_only()
        host.held_down = False
        if held:
            self._happened("new disk", "leases in use")

    async def _new_machine(self) -> None:
        host = self._host()
        async with host.being_repaired:
            await self._new_machine_of(host)

    async def _new_machine_of(self, host: Host) -> None:
        held = self._in_use(host)
        host.held_down = True
        host.kill()
        await host.until_down()
        self._world.lose(host)
        host.disk.folder = host.disk.fresh()
        host.clock.reboot()
        host.held_down = False
        if held:
            self._happened("new machine", "leases in use")

    async def _roll_back(self) -> None:
        """An old copy of the disk is put back."""
        host = self._host()
        async with host.being_repaired:
            await self._roll_back_of(host)

    async def _roll_back_of(self, host: Host) -> None:
        if host.agent is None or not host.disk.has_journal:
            return
        journal = host.agent.books.journal
        old = host.disk.copy()
        await trio.sleep(self._a_while_s(60))
        host.held_down = True
        self._world.taint(journal)
        held = self._in_use(host)
        host.kill()
        await host.until_down()
        self._world.lose(host)
        host.disk.folder = old
        host.held_down = False
        if held:
            self._happened("disk rolled back", "leases in use")

    async def _clone(self) -> None:
        """A second machine starts from a copy of the disk, while the first goes on."""
        host = self._host()
        async with host.being_repaired:
            await self._clone_of(host)

    async def _clone_of(self, host: Host) -> None:
        if host.agent is None or not host.disk.has_journal or len(self._world.hosts) > 2 * self._world.rates.hosts:
            return
        self._world.taint(host.agent.books.journal)
        if self._in_use(host):
            self._happened("disk cloned", "leases in use")
        self._world.add_host(host.disk.copy(), name=host.name)

    def _in_use(self, host: Host) -> bool:
        return host.agent is not None and any(lease.used for lease in host.agent.books.leases.values())

    # The control plane and the way to it.

    async def _kill_replica(self) -> None:
        self._dice.choice(self._world.replicas).die()

    async def _kill_at_statement(self) -> None:
        blow = self._in_turn("at a statement", KILLS)
        only, occasions = self._dice.choice(
            [("sync", 60), ("sync", 60), ("sync", 60), ("enroll", 6), ("admin", 9), ("", 60)]
        )
        if blow in (Blow.BEFORE_COMMIT, Blow.AFTER_COMMIT):
            occasions = 1 + occasions // 12
        for replica in self._world.replicas:
            replica.fuse = kindled(replica.fuse, Fuse(blow, self._dice.randint(1, occasions), only))

    async def _control_plane_down(self) -> None:
        for replica in self._world.replicas:
            replica.held_down = True
            replica.die()
        allowed = self._world.chronicle.decisions["ok"]
        await trio.sleep(self._a_while_s(90))
        if self._world.chronicle.decisions["ok"] > allowed:
            self._happened("control plane down", "calls allowed from leases")
        for replica in self._world.replicas:
            replica.held_down = False

    async def _put_back(self) -> None:
        """The database is restored from a backup: everything since then is forgotten, grants that were answered too."""
        if not all(host.agent is not None and host.agent._uplink.token for host in self._world.hosts):
            return  # who enrols after the backup is a stranger after the restore, and must be replaced
        backup = self._world.back_up()
        await trio.sleep(self._a_while_s(30))
        for replica in self._world.replicas:
            replica.held_down = True
            replica.die()
        while any(replica.open for replica in self._world.replicas):  # noqa: ASYNC110 - two tasks, a moment
            await trio.sleep(0.05)
        if self._world.restore(backup):
            self._happened("database put back", "leases forgotten")
        for replica in self._world.replicas:
            replica.held_down = False
        await trio.sleep(self._world.rates.storm_s)  # once is enough

    async def _database_away(self) -> None:
        for replica in self._world.replicas:
            replica.database_away = True
        await trio.sleep(self._dice.uniform(0.5, 20))
        for replica in self._world.replicas:
            replica.database_away = False
        self._happened("database away", "for a while")

    async def _partition(self) -> None:
        cut = self._dice.sample(self._world.hosts, self._dice.randint(1, len(self._world.hosts)))
        way = self._in_turn("way", ("up", "down", "both"))
        for host in cut:
            host.line.up_cut = way in ("up", "both")
            host.line.down_cut = way in ("down", "both")
        allowed = self._world.chronicle.decisions["ok"]
        await trio.sleep(self._dice.choice([self._a_while_s(10), self._a_while_s(3 * TERM_S)]))
        for host in cut:
            host.line.up_cut = host.line.down_cut = False
        if self._world.chronicle.decisions["ok"] > allowed:
            self._happened(f"partition ({way})", "calls allowed meanwhile")

    # Time.

    async def _pause(self) -> None:
        host = self._host()
        if host.agent is None:
            return
        if self._in_use(host):
            self._happened("pause", "leases in use")
        host.suspend()
        for_s = self._dice.choice([self._a_while_s(5), self._a_while_s(90), self._a_while_s(300)])
        await trio.sleep(for_s)
        if not host.standing:
            return
        host.go_on()
        if for_s > TERM_S:
            self._happened("pause", "beyond the term of a lease")

    async def _step_clock(self) -> None:
        host = self._host()
        step = self._in_turn("step", (-86_400_000, 5_000, -3_600_000, 3 * 86_400_000, -5_000, 3_600_000))
        host.clock.wall_offset_ms = step
        if self._in_use(host):
            self._happened("wall clock " + ("back" if step < 0 else "forward"), "leases in use")

    # Plans and people.

    async def _change_plan(self) -> None:
        contract = self._world.contracts.of[self._dice.choice(sorted(self._world.contracts.of))]
        await self._world.admin.publish(contract, changed(self._dice, contract.limits))

    async def _change_status(self) -> None:
        contract = self._world.contracts.of[self._dice.choice(sorted(self._world.contracts.of))]
        status = self._in_turn("status", ("paused", "cancelled", "archived"))
        await self._world.admin.set_status(contract, status)
        await trio.sleep(self._a_while_s(30))
        await self._world.admin.set_status(contract, "active")

    async def _revoke(self) -> None:
        host = self._host()
        async with host.being_repaired:
            await self._revoke_of(host)

    async def _revoke_of(self, host: Host) -> None:
        if host.agent is None or not host.agent.books.agent.startswith("agent-"):
            return
        if self._in_use(host):
            self._happened("agent revoked", "leases in use")
        self._world.revoked.add(host.agent.books.agent)
        await self._world.admin.revoke(host.agent.books.agent)
        await trio.sleep(self._a_while_s(30))
        host.held_down = True  # somebody replaces it
        host.kill()
        await host.until_down()
        self._world.lose(host)
        host.disk.folder = host.disk.fresh()
        host.held_down = False
