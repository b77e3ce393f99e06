"""The agent's half: memory against journal, one lease at a time. Each step names the function that it stands for.

A call in flight counts as use from the moment it is allowed (its caller may be at the provider by then) until its
caller says that it did not happen. One commit group holds one lease here: what the larger groups of the product do
between crashes is one of the ways that these can go.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.rules import Broken
from tests.model.state import Flight, Held, Machine, Report, Row, Side, Step, World, put


def steps(world: World, side: Side) -> Iterator[Step]:
    """Everything that agents may do now."""
    for at, machine in enumerate(side.machines):
        for place, held in enumerate(machine.memory):
            for what, news, spent in _on_a_lease(world, held):
                yield Step(
                    f"{what} (lease {held.lease}, start {machine.nonce})", _now(world, side, at, place, news, spent)
                )
            if held.flight:
                yield Step(
                    f"the group is on disk (lease {held.lease}, start {machine.nonce})",
                    _applied(world, side, at, place),
                )


def _on_a_lease(world: World, held: Held) -> Iterator[tuple[str, Held, int]]:
    yield from _calls(world, held)
    yield from _what_nobody_held(world, held)
    yield from _lowered(world, held)
    if held.flight is None:
        yield from _gathered(world, held)


def usable(world: World, held: Held) -> int:
    """``Allowance.take``: what may be used without waiting for the disk."""
    if held.closing:
        return 0
    if world.broken is Broken.USED_BEFORE_JOURNAL:
        return held.cap - held.used
    if world.broken is Broken.FREED_BEFORE_JOURNAL:
        return held.watermark - held.used
    return held.watermark - held.used - held.freeing


def _calls(world: World, held: Held) -> Iterator[tuple[str, Held, int]]:
    """``reserve``, ``settle``, ``release``: of calls with and without a row, and with a row on its way."""
    if usable(world, held) > 0:
        yield "a call is allowed", held._replace(young=held.young + 1), 1
    for what, ended, spent in _ends_of_calls(held):
        yield what, _lowered_further(world, ended), spent


def _ends_of_calls(held: Held) -> Iterator[tuple[str, Held, int]]:
    settled, flight = held.settled + 1, held.flight
    if held.young:
        yield "a call is settled", held._replace(young=held.young - 1, settled=settled), 0
        yield "a call is released unused", held._replace(young=held.young - 1), -1
    if held.filed > held.ghosts:
        filed = held._replace(filed=held.filed - 1)
        yield "a call with a row is settled", filed._replace(settled=settled), 0
        yield "a call with a row is released unused", filed._replace(ending=held.ending + 1), -1
    if held.ghosts:
        again = held._replace(filed=held.filed - 1, ghosts=held.ghosts - 1, ending=held.ending + 1)
        yield "a call that was released before the crash is released again", again, 0
    if flight and flight.filing:
        fewer = flight._replace(filing=flight.filing - 1)
        yield "a call whose row is being written is settled", held._replace(settled=settled, flight=fewer), 0
        undone = fewer._replace(undone=flight.undone + 1)
        yield "a call whose row is being written is released unused", held._replace(flight=undone), -1


def _lowered_further(world: World, held: Held) -> Held:
    """``charge_lines``: a lease on its way back keeps nothing of what a call gives back, so that its last word waits
    for the disk. A lease lent for one call is given up when the call ends."""
    central = world.broken is Broken.CENTRAL_BEFORE_EVENT
    if central or (held.closing and world.broken is not Broken.LAST_WORD_BEFORE_JOURNAL):
        return lowered(held, 0, closing=True)
    return held


def _what_nobody_held(world: World, held: Held) -> Iterator[tuple[str, Held, int]]:
    """``Allowance.charge``: a settle for which no call is known here; what a crash orphaned pays first."""
    broken = world.broken is Broken.REPEAT_PAID_BY_ORPHAN
    if held.orphan:
        paid = held._replace(orphan=held.orphan - 1, settled=held.settled + 1)
        yield "a call from before the crash is settled", paid, 0
        if broken:
            yield "a call recorded before is settled again, from what a crash orphaned", _repeated(paid), 0
    elif held.cap > held.used and not held.closing and (world.unasked or world.repeats):
        paid = held._replace(settled=held.settled + 1)
        paid = paid._replace(watermark=max(held.watermark, paid.used))
        if world.unasked:
            yield "use that nobody reserved is recorded", paid, 0
        if world.repeats:
            yield "a call recorded before is settled again", _repeated(paid), 0


def _repeated(held: Held) -> Held:
    return held._replace(repeated=held.repeated + 1)


def lowered(held: Held, keep: int, *, closing: bool) -> Held:
    """``Lease.lower``, and ``closing`` as ``give_back`` and a recall to nothing set it."""
    cap = min(held.cap, held.used + keep)
    return held._replace(cap=cap, watermark=min(held.watermark, cap), closing=closing)


def _lowered(world: World, held: Held) -> Iterator[tuple[str, Held, int]]:
    if held.closing:
        return
    yield "the lease is given up", lowered(held, 0, closing=True), 0
    for keep in range(held.cap - held.used if world.lowering else 0):
        yield f"the cap is lowered to {held.used + keep}", lowered(held, keep, closing=False), 0


def _gathered(world: World, held: Held) -> Iterator[tuple[str, Held, int]]:
    """``Pending.gather``: watermarks that fall do so in memory first."""
    least = min(held.cap, held.used + 1)
    targets = range(least, held.cap + 1) if world.partial_steps else (held.cap,)
    for target in (held.used,) if held.closing else targets:
        for filing in range(held.young + 1) if world.filing else (0,):
            row = Row(
                held.lease,
                held.cap,
                target,
                held.settled,
                held.orphan,
                held.filed + filing,
                held.closing,
                held.repeated,
            )
            gathered = held._replace(
                watermark=min(held.watermark, target),
                young=held.young - filing,
                ending=0,
                flight=Flight(row, held.ending, filing, 0),
            )
            rows = f", {filing} calls with rows" if filing else ""
            yield f"a group is gathered: cap {held.cap}, watermark {target}{rows}", gathered, 0


def _now(world: World, side: Side, at: int, place: int, held: Held, spent: int) -> Side:
    """The side with this lease in memory, and with what may be said of it by now."""
    if held.flight and not world.interleaved and not side.machines[at].memory[place].flight:
        return _on_disk(world, side, at, place, held)
    machine = side.machines[at]
    machine = machine._replace(memory=put(machine.memory, place, held))
    side = side._replace(machines=put(side.machines, at, machine))
    if spent:
        side = side._replace(spent=put(side.spent, held.lease, side.spent[held.lease] + spent))
    return speak(world, side, at, held)


def _applied(world: World, side: Side, at: int, place: int) -> Side:
    return _on_disk(world, side, at, place, side.machines[at].memory[place])


def _on_disk(world: World, side: Side, at: int, place: int, held: Held) -> Side:
    """``pending.applied``: the watermark rises, unless the lease is on its way back, and durable numbers are said."""
    assert held.flight is not None
    flight, machine = held.flight, side.machines[at]
    watermark = held.watermark if held.closing else min(held.cap, max(held.watermark, flight.row.watermark))
    held = held._replace(
        watermark=watermark,
        filed=held.filed + flight.filing,
        ending=held.ending + flight.undone,
        flight=None,
    )
    disk = tuple(sorted([*(row for row in machine.disk if row.lease != held.lease), flight.row]))
    machine = machine._replace(memory=put(machine.memory, place, held), disk=disk)
    return speak(world, side._replace(machines=put(side.machines, at, machine)), at, held)


def speak(world: World, side: Side, at: int, held: Held) -> Side:
    """Send what may be said now. Sending always is no less than sending sometimes: a message may never arrive."""
    machine = side.machines[at]
    row = next((row for row in machine.disk if row.lease == held.lease), None)
    if row is None:
        return side  # ``compose_sync``: not yet in the journal, so that nothing has been used of it
    report = report_of(world, machine, row, held)
    if world.broken is Broken.FORGOTTEN_BEFORE_ANSWER and report.closed:
        memory = tuple(other for other in machine.memory if other.lease != held.lease)
        disk = tuple(other for other in machine.disk if other.lease != held.lease)
        side = side._replace(machines=put(side.machines, at, machine._replace(memory=memory, disk=disk)))
    return side if report in side.said else side._replace(said=side.said | {report})


def report_of(world: World, machine: Machine, row: Row, held: Held) -> Report:
    """``Lease.report``: durable numbers only, and ``closed`` once they are the final ones (``Lease.done``)."""
    settled = row.settled == held.settled or world.broken is Broken.CENTRAL_BEFORE_EVENT
    early = world.broken is Broken.RETURN_BEFORE_JOURNAL
    cap = held.cap if early else row.cap
    final = settled and cap == held.cap and row.orphan == held.orphan
    done = held.closing and held.in_flight == 0 and final
    start = (machine.journal, machine.boot, machine.nonce)
    return Report(*start, held.lease, cap, row.settled, row.orphan, done, row.repeated)
