"""The password of the hub's first account: shown once, and made anew through the store where it is lost.

What speaks to stores is imported only where it is lost: that would be more than half of what `make status` costs.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from procs.errors import Unhealthy
from procs.hub.options import ADMIN, PASSWORD_FILE, Hub

if TYPE_CHECKING:
    from sqlalchemy import Connection


def take(run_dir: Path) -> str:
    """The password that the hub has made for its first account, once; "" if somebody has had it."""
    path = run_dir / PASSWORD_FILE
    try:
        password = path.read_text().strip()
        path.unlink()
    except OSError:
        return ""
    return password


def reset(hub: Hub, run_dir: Path) -> str:
    """Give the account a new password, which is returned; whoever was logged in by the old one is logged out.

    A hub that runs forgets an old password that was given by HTTP Basic within a minute. Raises Unhealthy, StoreDown.
    """
    from procs.hub.people import passwords
    from procs.hub.store import migrate
    from procs.hub.store.models import SCHEMA
    from procs.store import Store

    password = secrets.token_urlsafe(12)
    kept = passwords.hashed(password)
    store = Store(hub.store_url(run_dir))
    try:
        with store.reading() as connection:
            found = migrate.revision(connection)
        if found != SCHEMA:
            raise Unhealthy(f"the hub's store is {f'of version {found}' if found else 'empty'}; make up mends that")
        store.exclusively(lambda connection: _set(connection, kept))
    finally:
        store.engine.dispose()
    (run_dir / PASSWORD_FILE).unlink(missing_ok=True)  # it is worth nothing now
    return password


def _set(connection: Connection, kept: str) -> None:
    from sqlalchemy import select

    from procs.hub.people.accounts import set_password
    from procs.hub.store.models import users

    key = connection.execute(select(users.c.id).where(users.c.username == ADMIN)).scalar()
    if key is None:
        raise Unhealthy(f"the hub's store has no account {ADMIN}")
    set_password(connection, key, kept)
