"""The hub's tables. Times are seconds since the Unix epoch: the same on SQLite and PostgreSQL, and without zones.

A change here needs a migration in migrations/versions, and SCHEMA set to its revision.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, ForeignKey, Index, Integer, MetaData, String, Table

SCHEMA = "0003"  # the newest revision of migrations/versions

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("username", String(64), nullable=False, unique=True),
    Column("email", String(254), unique=True),
    Column("password", String(255), nullable=False),  # procs/hub/people/passwords.py
    Column("is_admin", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
)

devices = Table(
    "devices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device_id", String(128), nullable=False, unique=True),
    Column("device_name", String(128), nullable=False),
    Column("device_type", String(64), nullable=False),
    Column("verifier", String(255)),  # procs/wire/challenge.py; none: it has no secret yet
    Column("owner_id", ForeignKey("users.id", ondelete="SET NULL"), index=True),
    Column("created_at", Double, nullable=False),
    Column("last_seen", Double),
)

tokens = Table(
    "tokens",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the token
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),  # procs/hub/people/accounts.py
    Column("device_id", ForeignKey("devices.id", ondelete="CASCADE"), index=True),
    Column("login", String(32), nullable=False, index=True),  # one log-in, and all that was renewed from it
    Column("login_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False, index=True),
    Column("role", String(16), nullable=False, server_default="owner"),  # at most this, on every device
)

api_tokens = Table(  # what else is known of a token of kind "program"
    "api_tokens",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", ForeignKey("tokens.digest", ondelete="CASCADE"), nullable=False, unique=True),
    Column("name", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("last_used", Double),  # to a minute
    sqlite_autoincrement=True,  # an id that was somebody's is nobody else's
)

shares = Table(
    "shares",
    metadata,
    Column("device_id", ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("role", String(16), nullable=False),  # procs/hub/people/roles.py
    Column("created_at", Double, nullable=False),
)

device_events = Table(
    "device_events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device_id", ForeignKey("devices.id", ondelete="CASCADE"), nullable=False),
    Column("at", Double, nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("text", String(300), nullable=False),
    Index("ix_device_events_device_id", "device_id", "id"),
    sqlite_autoincrement=True,
)

pairing_codes = Table(
    "pairing_codes",
    metadata,
    Column("code", String(6), primary_key=True),
    Column("device_id", ForeignKey("devices.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("expires_at", Double, nullable=False, index=True),
)

watches = Table(  # sessions: procs/hub/viewers/watch_store.py
    "watches",
    metadata,
    Column("session_id", String(36), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("device_id", ForeignKey("devices.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("instance", String(64), nullable=False),  # of the device
    Column("kind", String(16), nullable=False),
    Column("stream", String(200), nullable=False),
    Column("login", String(32), nullable=False),  # by which the user came
    Column("begun_at", Double, nullable=False),
    Column("lease_until", Double, nullable=False, index=True),
    Column("ended_at", Double),
    Column("reason", String(64)),
)
