"""One world: real agents, a real control plane, a provider that knows the truth, and a storm; then all of it heals.

Everything runs in one Trio loop on a clock that jumps, decided by one seed.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from unittest import mock

import trio
from trio.testing import MockClock

import agent.running
from agent.store.journal import Journal, open_journal
from control_plane.core.tokens import Role, compose
from control_plane.operations.issue_token import provision
from control_plane.operations.learn_again import say_restored
from control_plane.store.database import Database
from tests.simulation import verdicts
from tests.simulation.admin import Admin
from tests.simulation.books_view import BooksView
from tests.simulation.callers import Callers
from tests.simulation.chaos import Chaos
from tests.simulation.checkers import Checkers
from tests.simulation.chronicle import Chronicle
from tests.simulation.contracts import Contract, Contracts, Key, draw_limits
from tests.simulation.determinism import run
from tests.simulation.hosts import Host
from tests.simulation.moments import BEGIN_MS, ServerClock, Time
from tests.simulation.network import Network
from tests.simulation.planes import Replica
from tests.simulation.provider import Provider
from tests.simulation.rates import Rates
from tests.simulation.standstill import OWNER

LOOK_S = 2.0
HEAL_S = 130.0
"""Two terms of a lease, and some: within it everything must have come right."""
IN_MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


@dataclass
class Report:
    """What a run came to."""

    seed: int
    digest: str
    chronicle: Chronicle
    virtual_s: float

    @property
    def decisions(self) -> int:
        """How many times callers were told yes or no."""
        return self.chronicle.decisions.total()


class World:
    """Everything there is."""

    def __init__(
        self, seed: int, rates: Rates, clock: MockClock, folder: Path, nursery: trio.Nursery, text: TextIO | None
    ) -> None:
        dice = random.Random(f"world-{seed}")
        self.seed = seed
        self.rates = rates
        self.dice = dice
        self.nursery = nursery
        self.time = Time(clock, BEGIN_MS + dice.randrange(86_400_000))
        self.chronicle = Chronicle(self.time.now_ms, text)
        self.tracing = True
        self.contracts = Contracts()
        self.provider = Provider(self.contracts, self.chronicle)
        self.revoked: set[str] = set()
        self.put_back = False
        self.lost: set[tuple[str, str]] = set()
        self._folder = folder
        self._database = folder / "control-plane.db"
        self.database_url = url = f"sqlite:///{self._database}"
        secret = f"{dice.getrandbits(128):043x}"
        self.join_token = compose(Role.JOIN, f"{dice.getrandbits(48):012x}", secret)
        admin_token = compose(Role.ADMIN, f"{dice.getrandbits(48):012x}", secret)
        self._provision(url, admin_token)
        self.view = BooksView(self._database)
        self.replicas = [
            Replica(f"replica-{n}", url, ServerClock(self.time, dice.randint(-40, 40)), self.chronicle, self._dice())
            for n in range(2)
        ]
        self._commits: Counter[str] = Counter()
        for replica in self.replicas:
            replica.committed = self._committed
        self.network = Network(nursery, self.replicas, rates, self._dice(), self.chronicle)
        self.network.state_of_books = self.view.totals
        self.network.foreign_commits = lambda doing: self._commits.total() - self._commits[doing]
        self.checkers = Checkers(self)
        self.hosts: list[Host] = []
        self.callers: list[Callers] = []
        self.admin = Admin(self, admin_token)
        self._draw_customers()

    def _dice(self) -> random.Random:
        return random.Random(self.dice.getrandbits(64))

    def _provision(self, url: str, admin_token: str) -> None:
        database = Database(url)
        now_ms = self.time.now_ms()
        with mock.patch.object(time, "time_ns", return_value=now_ms * 1_000_000):  # a migration dates what it writes
            database.migrate()
        database.run(lambda connection: provision(connection, "JOIN", self.join_token, Role.JOIN, now_ms))
        database.run(lambda connection: provision(connection, "ADMIN", admin_token, Role.ADMIN, now_ms))
        database.dispose()

    def _committed(self, doing: str) -> None:
        self._commits[doing] += 1

    def _draw_customers(self) -> None:
        rates = self.rates
        calls_a_minute = rates.hosts * rates.asks * 60 / rates.every_s / rates.customers
        for number in range(rates.customers):
            limits = draw_limits(self.dice, max(3.0, calls_a_minute * 3 * rates.size))
            self.contracts.of[f"customer-{number}"] = Contract(f"customer-{number}", limits)

    # What happens.

    async def live(self) -> None:
        """From the first start to the last verdict."""
        for replica in self.replicas:
            self.nursery.start_soon(replica.live)
        await trio.sleep(1)
        await self.admin.set_up()
        for number in range(self.rates.hosts):
            self.add_host(None, name=f"host-{number}")
        self.nursery.start_soon(self._look_again_and_again)
        with trio.move_on_after(self.rates.storm_s):
            await Chaos(self, self._dice()).storm()
        await self._heal()
        verdicts.after_the_storm(self)

    def add_host(self, folder: Path | None, name: str) -> Host:
        """Another machine, perhaps with a copy of somebody's disk."""
        number = len(self.hosts)
        host = Host(
            self, f"{name}" if folder is None else f"{name}-copy-{number}", self._folder / f"h{number}", self._dice()
        )
        if folder is not None:
            host.disk.folder = folder
        self.hosts.append(host)
        callers = Callers(self, host, self._dice())
        self.callers.append(callers)
        self.nursery.start_soon(host.live)
        self.nursery.start_soon(callers.run)
        return host

    async def _look_again_and_again(self) -> None:
        while True:
            for _ in range(4):
                await trio.sleep(LOOK_S / 4)
                self.checkers.look_at_hosts()
            self.checkers.look()

    async def _heal(self) -> None:
        """No more faults; a while of ordinary life, then nobody asks any more, and all must come right."""
        self.chronicle.note("healing")
        self.network.calm = True
        for replica in self.replicas:
            replica.held_down = replica.database_away = False
            replica.fuse = None
        for host in self.hosts:
            host.go_on()
            host.held_down = False
            host.disk.fuse, host.disk.full, host.disk.slow_s = None, False, 0.0
            host.line.up_cut = host.line.down_cut = False
        for contract in self.contracts.of.values():
            await self.admin.set_status(contract, "active")
        await trio.sleep(5)
        for host in self.hosts:
            await self._replace_if_revoked(host)
        await trio.sleep(5)
        for callers in self.callers:
            callers.asking = False
        with trio.move_on_after(300):
            while any(callers.busy for callers in self.callers):  # noqa: ASYNC110 - plain functions end them
                await trio.sleep(1)
        with trio.move_on_after(HEAL_S):
            while any(verdicts.not_yet_right(self)):  # noqa: ASYNC110 - a look from outside
                await trio.sleep(5)
        for checker, text in verdicts.not_yet_right(self):
            self.chronicle.breach(checker, text)
        for host in self.hosts:
            host.held_down = True
            host.stop()
        with trio.move_on_after(30):
            while any(host.agent is not None for host in self.hosts):  # noqa: ASYNC110 - a look from outside
                await trio.sleep(0.1)
        await trio.sleep(5)
        self.checkers.look()

    async def _replace_if_revoked(self, host: Host) -> None:
        """Somebody gives a revoked agent a new machine; copies of its disk are revoked with it."""
        with trio.move_on_after(10):
            while host.agent is None:  # noqa: ASYNC110 - between two lives
                await trio.sleep(0.1)
        if host.agent is None or host.agent.books.agent not in self.revoked:
            return
        host.held_down = True
        host.kill()
        await host.until_down()
        self.lose(host)
        host.disk.folder = host.disk.fresh()
        host.held_down = False

    # What others ask of the world.

    def taken(self, customer: str) -> dict[Key, int]:
        """What is used or lent of each of a customer's allowances at this moment."""
        return {row.key: row.posted + row.direct + row.outstanding for row in self.view.allowances(customer)}

    def taint(self, journal: str) -> None:
        """A disk is about to live twice, or to go back in time."""
        self.provider.tainted.add(journal)
        self.provider.forgive = self._forgive
        self._forgive()

    def _forgive(self) -> None:
        forgiven: Counter[Key] = Counter()
        for journal in sorted(self.provider.tainted):
            forgiven.update(self.view.granted_to(journal))
        self.provider.forgiven = dict(forgiven)

    def lose(self, host: Host, label: str = "") -> None:
        """A disk is lost, or set aside: what it alone remembers may never arrive."""
        self.lost |= host.disk.unconfirmed(label)

    def back_up(self) -> Path:
        """A copy of the control plane's database as it is now."""
        target = self._folder / f"backup-{self.time.now_ms()}.db"
        with sqlite3.connect(self._database) as source, sqlite3.connect(target) as copy:
            source.backup(copy)
        source.close()
        copy.close()
        return target

    def restore(self, backup: Path) -> int:
        """Put an older copy in the place of the database; how many leases it has forgotten."""
        before = self.view.lease_names()
        self.view.close()
        for suffix in ("-wal", "-shm"):
            self._database.with_name(self._database.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(backup, self._database)
        database, now_ms = Database(self.database_url), self.time.now_ms()
        database.run(lambda connection: say_restored(connection, "operator", "the disk was lost", now_ms))
        database.dispose()
        self.put_back = True
        self.view.reopen()
        self.checkers.start_afresh()
        return len(before - self.view.lease_names())

    def another(self, host: Host) -> Callers | None:
        """The callers of some other host."""
        others = [callers for callers in self.callers if callers.host is not host]
        return self.dice.choice(others) if others else None

    def plug_in(self, data_dir: Path) -> Journal:
        """Open a journal on the disk of the host whose task this is."""
        host = OWNER.get()
        assert isinstance(host, Host)
        if host.disk.full:
            host.disk.met_full()
        journal = open_journal(data_dir)
        journal._connection = host.disk.plug_in(journal._connection)  # type: ignore[assignment]
        return journal


def simulate(seed: int, rates: Rates, text: TextIO | None = None) -> Report:
    """One seed, from beginning to end. The report holds what was broken, if anything was."""

    async def main(clock: MockClock) -> Report:
        with tempfile.TemporaryDirectory(prefix="allotment-sim-", dir=IN_MEMORY) as folder:
            async with trio.open_nursery() as nursery:
                world = World(seed, rates, clock, Path(folder), nursery, text)
                with mock.patch.object(agent.running, "open_journal", world.plug_in):
                    await _until_over_or_broken(world)
                    nursery.cancel_scope.cancel()
            world.view.close()
            verdicts.no_task_is_left(world)
        return Report(seed, world.chronicle.digest, world.chronicle, clock.current_time())

    return run(seed, main)  # type: ignore[no-any-return]


async def _until_over_or_broken(world: World) -> None:
    async with trio.open_nursery() as nursery:

        async def live() -> None:
            await world.live()
            nursery.cancel_scope.cancel()

        nursery.start_soon(live)
        await world.chronicle.broken.wait()
        for host in world.hosts:
            host.go_on()  # else what stands still could not end
        nursery.cancel_scope.cancel()
