"""The durable store: SQLite or PostgreSQL behind a few threads of its own, so that a slow disk never stops the loop.

Work is a plain function of a connection; what `run` has returned from is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url, text

from procs.errors import ConfigError, StoreDown

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 4
DEADLINE_S = 10.0
MAX_WAITING = 2000
BUSY_MS = 5000  # for another writer of the same file
# OSError: what becomes of a PostgreSQL that dies while it is spoken to, which pg8000 hands on as it is.
_DOWN = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError, OSError)
LOCK = 0x706C616E  # PostgreSQL's advisory lock of those that start; any number, but the same for all


class Store:
    """One database, which `variable` names. Every call ends within DEADLINE_S, with StoreDown at the latest."""

    def __init__(self, url: str, variable: str = "DATABASE_URL") -> None:
        self.engine = _engine(url, variable)
        self._threads = ThreadPoolExecutor(THREADS, "store")
        self._doing: set[Future[Any]] = set()

    async def read(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work that changes nothing. Raises StoreDown."""
        return await self._in_thread(self._reading, work, args, kwargs)

    async def run(self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run work in a transaction of its own, which is on disk when this returns. Raises StoreDown, upon which it
        may have happened or not; what the work itself raises takes everything back."""
        return await self._in_thread(self._writing, work, args, kwargs)

    async def _in_thread(self, how: Callable[..., T], *args: Any) -> T:
        if self.waiting >= MAX_WAITING:
            raise StoreDown("the store has too much to do")
        # One that hangs holds its place until it is done, not until we stop waiting for it.
        doing = self._threads.submit(how, *args)
        self._doing.add(doing)
        doing.add_done_callback(self._doing.discard)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(doing), DEADLINE_S)
        except TimeoutError:
            raise StoreDown(f"no answer of the store within {DEADLINE_S:g} s") from None

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread, or run."""
        return len(self._doing)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read by, blocking. Raises StoreDown."""
        try:
            with self._connected() as connection:
                yield connection
        except _DOWN as error:
            raise StoreDown(_said(error)) from None

    def _connected(self) -> Connection:
        """A connection. Raises StoreDown whatever the server says: it may be starting, or full."""
        try:
            return self.engine.connect()
        except (exc.DBAPIError, exc.TimeoutError, OSError) as error:
            raise StoreDown(_said(error)) from None

    def _reading(self, work: Callable[..., T], args: Any, kwargs: Any) -> T:
        with self.reading() as connection:
            return work(connection, *args, **kwargs)

    def _writing(self, work: Callable[..., T], args: Any, kwargs: Any) -> T:
        try:
            with self._connected().execution_options(writes=True) as connection, connection.begin():
                return work(connection, *args, **kwargs)
        except _DOWN as error:
            raise StoreDown(_said(error)) from None

    def exclusively(self, work: Callable[[Connection], T]) -> T:
        """Run work as the only process of this database that does so, blocking. Raises StoreDown."""

        def alone(connection: Connection) -> T:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            return work(connection)

        return self._writing(alone, (), {})


def _engine(address: str, variable: str) -> Engine:
    # A server that went away makes the pool log each dead connection with its stack; whoever asked is told anyway.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    try:
        url = make_url(address)
    except exc.ArgumentError:
        raise ConfigError(f"{variable}=***: must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME") from None
    if url.drivername.startswith("sqlite"):
        return _sqlite(str(url.database or ""), variable)
    return create_engine(
        url.set(drivername="postgresql+pg8000"),
        connect_args={"timeout": int(DEADLINE_S)},
        hide_parameters=True,  # an error that ends the process is logged, and what people said is not for the log
        pool_size=THREADS,
        max_overflow=0,
        pool_timeout=DEADLINE_S,
        pool_pre_ping=True,  # PostgreSQL may have been restarted since
    )


def _sqlite(file: str, variable: str) -> Engine:
    if not file or not Path(file).parent.is_dir():
        raise ConfigError(f"{variable}=sqlite:///{file}: must name a file in a directory that is there")
    Path(file).touch(mode=0o600)
    engine = create_engine(
        f"sqlite:///{file}",
        connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False},
        hide_parameters=True,
        pool_size=THREADS,
        max_overflow=0,
        pool_timeout=DEADLINE_S,
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us: Python's sqlite3 would leave DDL out of them
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes its lock at once: one that first reads can't wait for another, it would fail.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _said(error: Exception) -> str:
    """What went wrong, without the statement and what was in it."""
    said = str(getattr(error, "orig", None) or error).splitlines()
    return f"the store: {said[0][:200] if said else type(error).__name__}"
