"""What a hub finds or makes at its start: its tables, the first account, the device beside it. Blocking, and safe
against a kill at any moment, and against another hub of the same store that starts, too."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import msgspec
from sqlalchemy import Connection, select, update

from procs import log
from procs.errors import ConfigError, Refused
from procs.hub.devices.registry import add_device
from procs.hub.options import ADMIN, PASSWORD_FILE, Hub
from procs.hub.people import passwords
from procs.hub.people.accounts import add_user, has_users
from procs.hub.store import migrate
from procs.hub.store.models import devices, users
from procs.store import Store
from procs.wire.challenge import Verifier
from procs.wire.scalars import Id

ADOPT_FILE = "hub-adopt.json"


class Adopted(msgspec.Struct):
    """run/hub-adopt.json: the device of this very suite, which `make up` has made."""

    device_id: Id
    verifier: str
    name: str = ""


def prepare(store: Store, settings: Hub, run_dir: Path) -> None:
    """Bring the store up to date. Raises StoreDown, ConfigError."""
    migrate.bring_up_to_date(store)
    store.exclusively(lambda connection: _make_admin(connection, settings, run_dir / PASSWORD_FILE))
    if adopted := _read_adopted(run_dir / ADOPT_FILE):
        store.exclusively(lambda connection: _adopt(connection, adopted))


def _make_admin(connection: Connection, settings: Hub, file: Path) -> None:
    if has_users(connection):
        return
    password = settings.admin_password or _kept_password(file)
    if len(password) not in passwords.LENGTHS:
        allowed = f"{passwords.LENGTHS.start} to {passwords.LENGTHS.stop - 1} characters"
        raise ConfigError(f"PLANARIA_ADMIN_PASSWORD=***: must be {allowed}")
    add_user(connection, ADMIN, "", passwords.hashed(password), time.time(), is_admin=True)
    where = "PLANARIA_ADMIN_PASSWORD" if settings.admin_password else str(file)
    log.info(f"first start: made the account {ADMIN}; its password stands in {where}")


def _kept_password(file: Path) -> str:
    """A new password, on disk before any store knows it: killed in between, the next start finds the same."""
    if file.exists():
        return file.read_text().strip()
    password = secrets.token_urlsafe(12)
    beside = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(password + "\n")
        out.flush()
        os.fsync(out.fileno())
    beside.rename(file)
    _sync_directory(file.parent)
    return password


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _read_adopted(file: Path) -> Adopted | None:
    if not file.exists():
        return None
    try:
        adopted = msgspec.json.decode(file.read_bytes(), type=Adopted)
        Verifier.from_text(adopted.verifier)
    except (OSError, msgspec.DecodeError, UnicodeError, Refused) as error:
        raise ConfigError(f"{file}: cannot be read ({error}); make up writes it") from None
    return adopted


def _adopt(connection: Connection, adopted: Adopted) -> None:
    name = adopted.name or adopted.device_id
    device = add_device(connection, adopted.device_id, name, "camera", adopted.verifier, time.time())
    admin = connection.execute(select(users.c.id).where(users.c.username == ADMIN)).scalar()
    owner = device.owner if device.owner is not None else admin
    if (device.verifier, device.owner) != (adopted.verifier, owner):
        changed = update(devices).where(devices.c.id == device.key)
        connection.execute(changed.values(verifier=adopted.verifier, owner_id=owner))
        log.info("took in the device of this suite", device=adopted.device_id)
