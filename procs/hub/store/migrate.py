"""Brings the store's tables to what models.py says. Alembic, which costs a start 0.3 s, only where there is work."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from procs import log
from procs.errors import ConfigError
from procs.hub.store.models import SCHEMA
from procs.store import Store

SCRIPTS = Path(__file__).parent / "migrations"


def bring_up_to_date(store: Store) -> None:
    """Run the migrations that this store lacks, all or none of them. Raises StoreDown, ConfigError."""
    with store.reading() as connection:
        if revision(connection) == SCHEMA:
            return
    store.exclusively(_upgrade)


def revision(connection: Connection) -> str | None:
    """Up to which migration the tables are; None for a store without any."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    before = revision(connection)  # another hub may have been faster
    if before == SCHEMA:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, SCHEMA)
    except CommandError as error:  # a revision that we do not know
        raise ConfigError(f"DATABASE_URL: the store is of another version, {before}: {error}") from None
    log.info("store brought up to date", was=before, now=SCHEMA)
