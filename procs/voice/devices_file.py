"""devices.json on disk: read again when it has changed, written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from procs.errors import Refused
from procs.kinds import matching
from procs.voice import config, doubts
from procs.voice.config import Device, FindVoice, Parsed

GONE = "is gone"
TOKEN = matching(r"[!-~]{1,256}", "1 to 256 printable ASCII characters without blanks")


class Told(NamedTuple):
    """What the file says now."""

    configured: bool  # there is one
    devices: dict[str, Device]  # with what their token_file holds as token
    problems: list[str]
    unread: str = ""  # why the file as a whole can't be read now, one of these: all devices are as they were


class DevicesFile:
    """One file, and what it said last. A device that is wrong now stays as it was, and so do all where the file can't
    be read any more or is gone: an editor or a copy may take it away first, and no conversation ends by that. Only a
    list without a device ends them."""

    def __init__(self, path: Path, find_voice: FindVoice) -> None:
        self.path, self._find_voice = path, find_voice
        self._token_files: list[Path] = []
        self._stamps: tuple[object, ...] = ()
        self.told = Told(False, {}, [])

    def look(self) -> bool:
        """Read it if it has changed; returns whether there is anything new, as there is the first time."""
        stamps = self._stamp(self.path), *map(self._stamp, self._token_files)
        if stamps == self._stamps:
            return False
        before = self.told if self._stamps else None
        self.told = self._read()
        self._stamps = stamps[0], *map(self._stamp, self._token_files)
        return self.told != before

    @staticmethod
    def _stamp(path: Path) -> object:
        try:
            its = path.stat()
        except OSError as error:
            return error.errno
        return its.st_mtime_ns, its.st_size, its.st_ino

    def _read(self) -> Told:
        name = self.path.name
        try:
            parsed = config.parse(_text_of(self.path), self._find_voice, name)
        except FileNotFoundError:
            return self._unread(f"{name}: {GONE}") if self.told.configured else Told(False, {}, [])
        except (OSError, UnicodeDecodeError) as error:
            return self._unread(f"{name}: cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}")
        except Refused as problem:
            return self._unread(str(problem))
        return self._with_tokens(parsed)

    def _unread(self, why: str) -> Told:
        if devices := self.told.devices:
            why += f"; {f'its {len(devices)} devices stay' if len(devices) > 1 else 'its device stays'} as before"
        return Told(True, devices, [why], why)

    def _with_tokens(self, parsed: Parsed) -> Told:
        devices, problems = dict(parsed.devices), list(parsed.problems)
        wrong = set(parsed.wrong)
        self._token_files = []
        for name, device in parsed.devices.items():
            if not device.token_file:
                continue
            self._token_files.append(self.path.parent / device.token_file)
            try:
                devices[name] = device._replace(token=_token_of(self._token_files[-1]))
            except Refused as error:
                problems.append(f'{self.path.name}: device "{name}": {error}')
                wrong.add(name)
                del devices[name]
        kept = {name: its for name, its in self.told.devices.items() if name in wrong}
        devices = kept | devices
        return Told(True, devices, problems + [f"{self.path.name}: {each}" for each in doubts.of(devices.values())])

    # Changes of a person's, by REST. They raise Refused, and KeyError for a name that is not there.

    def change(self, name: str, changes: dict[str, object]) -> None:
        """Other values for one device."""
        self._write(config.changed(self._now(), name, changes, self._find_voice))

    def refuse_new(self, entry: dict[str, object]) -> None:
        """What is wrong by itself, whatever the file says."""
        config.refuse_new(entry, self._find_voice)

    def add(self, entry: dict[str, object]) -> None:
        """One more."""
        self._write(config.added(self._now(), entry, self._find_voice))

    def remove(self, name: str) -> None:
        """One less."""
        self._write(config.without(self._now(), name))

    def _now(self) -> str:
        try:
            return _text_of(self.path)
        except FileNotFoundError:
            if self.told.configured:  # a new one would have the others forgotten
                raise Refused(f"{self.path.name}: {GONE}") from None
            return '{"devices": []}'
        except (OSError, UnicodeDecodeError) as error:
            raise Refused(f"{self.path.name}: cannot be read: {error}") from None

    def _write(self, text: str) -> None:
        """By temp, fsync, rename; its mode stays, and a new one is ours alone: tokens stand in it."""
        try:
            mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o600
            beside = self.path.with_name(f".{self.path.name}.new")
            beside.unlink(missing_ok=True)
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(descriptor, "w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(descriptor)
            os.replace(beside, self.path)
        except OSError as error:
            raise Refused(f"{self.path.name}: cannot be written: {error.strerror}") from None
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)


def _token_of(file: Path) -> str:
    """Raises Refused."""
    try:
        return str(TOKEN.parse(_text_of(file).strip()))
    except OSError as error:
        raise Refused(f"token_file={str(file)!r}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise Refused(f"token_file={str(file)!r}: must hold {TOKEN.allowed}") from None


def _text_of(file: Path) -> str:
    """What is in it, for which nobody has to wait: a pipe may never say anything, and /dev/zero never ends. Raises
    OSError, UnicodeDecodeError."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        data = opened.read(config.MAX_BYTES + 1)
    if len(data) > config.MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is longer than {config.MAX_BYTES} bytes")
    return data.decode()
