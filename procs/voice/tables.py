"""What lasts: who calls which device, what was said there, which microphones are muted.

Several backends may share one database. Its clock counts for all leases, so that theirs need not agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    inspect,
    or_,
    select,
)
from sqlalchemy import literal_column as literal
from sqlalchemy.dialects import postgresql, sqlite

from procs.messages.voice import Line, Role
from procs.voice.leases import LEASE_S, Held

KEPT = 200  # lines of each device

metadata = MetaData()

leases = Table(
    "voice_leases",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("until", Double, nullable=False),  # Unix time, by the clock of the database
)
lines = Table(
    "voice_lines",
    metadata,
    Column("device", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("role", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("at", Double, nullable=False),
)
mutes = Table("voice_mutes", metadata, Column("device", String(64), primary_key=True))


class Known(NamedTuple):
    """What a child of a device is born with."""

    lines: list[Line]
    muted: bool


def make(connection: Connection) -> None:
    """Make the tables that are not there."""
    if not all(inspect(connection).has_table(name) for name in metadata.tables):
        metadata.create_all(connection)


def _now(connection: Connection) -> Any:
    if connection.dialect.name == "postgresql":
        return literal("extract(epoch FROM clock_timestamp())", Double)
    return literal("((julianday('now') - 2440587.5) * 86400.0)", Double)


def _insert(connection: Connection, table: Table) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def take(connection: Connection, owner: str, devices: Collection[str]) -> dict[str, Held]:
    """Renew what this owner holds, take what nobody holds any more, and give back what it wants no more; returns who
    holds each."""
    mine = leases.c.owner == owner
    connection.execute(delete(leases).where(and_(mine, leases.c.device.not_in(list(devices)))))
    if not devices:
        return {}
    now = _now(connection)
    # In one order, whoever asks: two that lock the same rows never wait for each other.
    rows = [{"device": device, "owner": owner, "until": now + LEASE_S} for device in sorted(devices)]
    wanted = _insert(connection, leases).values(rows)
    wanted = wanted.on_conflict_do_update(
        index_elements=[leases.c.device],
        set_={"owner": wanted.excluded.owner, "until": wanted.excluded.until},
        where=or_(mine, leases.c.until < now),
    )
    connection.execute(wanted)
    asked = select(leases.c.device, leases.c.owner, (leases.c.until - now).label("left"))
    found = connection.execute(asked.where(leases.c.device.in_(list(devices))))
    return {row.device: Held(row.owner, float(row.left)) for row in found}


def is_elsewhere(connection: Connection, owner: str, device: str) -> bool:
    """Whether somebody else holds a device."""
    held = and_(leases.c.device == device, leases.c.owner != owner, leases.c.until >= _now(connection))
    return connection.execute(select(leases.c.device).where(held)).first() is not None


def known(connection: Connection, device: str) -> Known:
    """What was said at a device, oldest first, and whether it is muted."""
    newest = select(lines).where(lines.c.device == device).order_by(lines.c.number.desc()).limit(KEPT)
    said = [Line(row.number, _role(row.role), row.text, row.final, row.at) for row in connection.execute(newest)]
    is_muted = connection.execute(select(mutes.c.device).where(mutes.c.device == device)).first() is not None
    return Known(said[::-1], is_muted)


def _role(text: str) -> Role:
    return "assistant" if text == "assistant" else "user"


def keep(connection: Connection, owner: str, said: Iterable[tuple[str, Line]]) -> set[str]:
    """Write lines of devices that this owner holds, and forget those that are too old; returns the devices that it does
    not hold: another has gone on there meanwhile."""
    by_device: dict[str, list[Line]] = {}
    for device, line in said:
        by_device.setdefault(device, []).append(line)
    held = select(leases.c.device).where(and_(leases.c.owner == owner, leases.c.device.in_(list(by_device))))
    ours = set(connection.execute(held).scalars())
    for device in sorted(ours):
        _keep(connection, device, by_device[device])
    return by_device.keys() - ours


def _keep(connection: Connection, device: str, said: Sequence[Line]) -> None:
    rows = [
        {"device": device, "number": s.number, "role": s.role, "text": _text(s.text), "final": s.final, "at": s.at}
        for s in said
    ]
    wanted = _insert(connection, lines)
    wanted = wanted.on_conflict_do_update(
        index_elements=[lines.c.device, lines.c.number],
        set_={name: wanted.excluded[name] for name in ("role", "text", "final", "at")},
    )
    connection.execute(wanted, rows)
    newest = select(func.max(lines.c.number)).where(lines.c.device == device).scalar_subquery()
    connection.execute(delete(lines).where(and_(lines.c.device == device, lines.c.number <= newest - KEPT)))


def _text(text: str) -> str:
    """PostgreSQL takes every character but this one, and of a transaction with it nothing."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def forget(connection: Connection, device: str) -> None:
    """Everything that was said at a device."""
    connection.execute(delete(lines).where(lines.c.device == device))


def mute(connection: Connection, device: str, is_muted: bool) -> None:
    """Note whether a device's microphone is muted."""
    connection.execute(delete(mutes).where(mutes.c.device == device))
    if is_muted:
        connection.execute(_insert(connection, mutes).values(device=device))
