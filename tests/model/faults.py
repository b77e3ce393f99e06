"""What befalls an agent: its death, with the disk kept, lost, or old; and a disk that comes to life twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tests.model.holder import report_of
from tests.model.rules import Broken
from tests.model.state import Held, Machine, Row, Side, Snapshot, Starts, Step, World, put


def steps(world: World, side: Side) -> Iterator[Step]:
    """Every fault that the world still has in store. A death and the next start are one step."""
    left = side.left
    for at, machine in enumerate(side.machines):
        if left.crashes:
            fewer = side._replace(left=left._replace(crashes=left.crashes - 1))
            for disk, ghosts, what in _deaths(machine):
                yield Step(
                    f"start {machine.nonce} dies{what}", _start(world, fewer, at, machine._replace(disk=disk), ghosts)
                )
        if left.new_disks:
            fewer = side._replace(left=left._replace(new_disks=left.new_disks - 1))
            yield Step(f"start {machine.nonce} dies, and its disk is lost", _new_disk(world, fewer, at, machine))
        if left.copies:
            copied = _another_life(side._replace(left=left._replace(copies=left.copies - 1)), machine)
            copied = copied._replace(machines=(*copied.machines, machine))
            yield Step(
                f"the disk of start {machine.nonce} is copied, and the copy started",
                _start(world, copied, len(side.machines), machine, {}),
            )
        if left.backups and side.backup is None:
            yield Step(
                f"the disk of start {machine.nonce} is backed up", side._replace(backup=machine._replace(memory=()))
            )
        if left.backups and side.backup is not None:
            fewer = side._replace(left=left._replace(backups=left.backups - 1), backup=None)
            older = _another_life(fewer, side.backup)
            yield Step(
                f"start {machine.nonce} dies, and its disk is rolled back", _start(world, older, at, side.backup, {})
            )


def _deaths(machine: Machine) -> Iterator[tuple[tuple[Row, ...], dict[int, int], str]]:
    """What may be on disk after a death: each group on its way is there or is not; and which of the calls with rows
    were released, by lease."""
    flying = [held for held in machine.memory if held.flight]
    for written in product((False, True), repeat=len(flying)):
        rows = {row.lease: row for row in machine.disk}
        ghosts = {held.lease: held.ghosts + held.ending for held in machine.memory}
        for held, is_written in zip(flying, written, strict=True):
            assert held.flight is not None
            if is_written:
                rows[held.lease] = held.flight.row
            ghosts[held.lease] += held.flight.undone if is_written else held.flight.ending
        what = f", {sum(written)} of {len(flying)} groups on its way written" if flying else ""
        yield tuple(rows[lease] for lease in sorted(rows)), ghosts, what


def _start(world: World, side: Side, at: int, machine: Machine, ghosts: dict[int, int]) -> Side:
    """``main._remember`` and ``restore``: the boot is counted on disk before anything else, and what the watermark
    covers and nobody accounts for may have been used."""
    nonce = side.nonces + 1
    rows, memory = [], []
    for row in machine.disk:
        orphan = max(0, row.watermark - row.settled - row.filed)
        if world.broken is Broken.ORPHANS_FORGOTTEN:
            orphan = 0
        held = Held(
            row.lease, row.cap, row.watermark, row.settled, orphan,
            0, row.filed, min(row.filed, ghosts.get(row.lease, 0)), 0, row.closing, row.repeated, None,
        )  # fmt: skip
        rows.append(row._replace(orphan=orphan))
        memory.append(held)
    started = Machine(machine.journal, machine.boot + 1, nonce, tuple(rows), tuple(memory))
    reports = tuple(report_of(world, started, row, held) for row, held in zip(rows, memory, strict=True))
    snapshot = Snapshot(started.journal, started.boot, nonce, reports)
    return side._replace(machines=put(side.machines, at, started), said=side.said | {snapshot, *reports}, nonces=nonce)


def _new_disk(world: World, side: Side, at: int, machine: Machine) -> Side:
    if world.broken is Broken.NO_JOURNAL_IDENTITY:
        return _start(world, side, at, machine._replace(disk=()), {})
    fresh = Machine(len(side.starts), 0, 0, (), ())
    return _start(world, side._replace(starts=(*side.starts, Starts())), at, fresh, {})


def _another_life(side: Side, machine: Machine) -> Side:
    """Its journal has one more life, and so have the leases on this disk."""
    starts = side.starts[machine.journal]
    loans = side.loans
    for row in machine.disk:
        loans = put(loans, row.lease, loans[row.lease]._replace(copied=True))
    lives = starts._replace(lives=starts.lives + 1)
    return side._replace(starts=put(side.starts, machine.journal, lives), loans=loans)
