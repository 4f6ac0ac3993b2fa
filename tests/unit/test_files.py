"""A file from one side to the other: resumed where it broke off, and never anything but what was sent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from procs.agent import file_disk
from procs.agent.file_disk import FilePart, FileSource
from procs.agent.files import CHUNK, End, Failed, Message, Offered, Receiving, Sending, decode, encode
from procs.errors import Refused

SIZE = 5 * CHUNK + 17


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file to send."""
    made = tmp_path / "Fisch 🐟.bin"
    made.write_bytes(os.urandom(SIZE))
    yield made
    while Pair.made:
        Pair.made.pop().die()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where files come."""
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


class Pair:
    """Both sides, and a channel between them that never fails."""

    made: ClassVar[list[Pair]] = []

    def __init__(self, path: Path, folder: Path, peer: str = "bob") -> None:
        self.source = FileSource(path)
        self.sending = Sending("0" * 16, self.source)
        self.made.append(self)
        self.receiving = Receiving(lambda offered: FilePart(folder, peer, offered))

    def run(self, chunks: int = 1000) -> Sending:
        """Until it is over, or so many chunks are through."""
        waiting: list[Message] = [self.sending.offer()]
        while chunks and self.sending.state not in ("done", "failed"):
            answers = [answer for each in waiting for answer in self.receiving.take(decode(encode(each)))]
            waiting = [each for answer in answers for each in self.sending.take(decode(encode(answer)))]
            if not waiting and self.sending.state == "sending":
                what = self.sending.next()
                if isinstance(what, bytes):
                    self.receiving.take_data(what)
                    chunks -= 1
                else:
                    waiting = [what]
        return self.sending

    def die(self) -> None:
        """As their processes."""
        self.source.close()
        if isinstance(self.receiving.part, FilePart):
            self.receiving.part.close()


def test_it_arrives_with_its_time_and_under_its_name(path: Path, folder: Path) -> None:
    sending = Pair(path, folder).run()
    (arrived,) = folder.iterdir()
    assert (sending.state, sending.name, arrived.name) == ("done", path.name, path.name)
    assert arrived.read_bytes() == path.read_bytes() and arrived.stat().st_mtime_ns == path.stat().st_mtime_ns


@pytest.mark.parametrize("size", [0, 1, CHUNK])
def test_sizes(path: Path, folder: Path, size: int) -> None:
    path.write_bytes(bytes(size))
    assert Pair(path, folder).run().state == "done"
    assert (folder / path.name).stat().st_size == size


def test_it_goes_on_where_it_broke_off(path: Path, folder: Path) -> None:
    first = Pair(path, folder)
    first.run(3)
    first.die()
    again = Pair(path, folder).run()
    assert (again.state, again.resumed_at) == ("done", 3 * CHUNK)
    assert (folder / path.name).read_bytes() == path.read_bytes()
    once_more = Pair(path, folder).run()
    assert (once_more.resumed_at, once_more.name) == (SIZE, path.name), "it is known to be there"
    assert [each.name for each in folder.iterdir()] == [path.name]


def test_what_was_spoilt_meanwhile_is_not_gone_on_with(path: Path, folder: Path) -> None:
    first = Pair(path, folder)
    first.run(3)
    first.die()
    (part,) = folder.glob(".*.part")
    part.write_bytes(b"x" + part.read_bytes()[1:])
    again = Pair(path, folder).run()
    assert (again.state, again.resumed_at) == ("done", 0)
    assert (folder / path.name).read_bytes() == path.read_bytes()


def test_another_file_of_the_name_stays(path: Path, folder: Path) -> None:
    there = folder / path.name
    there.write_bytes(bytes(SIZE))
    os.utime(there, ns=(path.stat().st_mtime_ns,) * 2)  # even with the same size and time
    sending = Pair(path, folder).run()
    assert sending.name == "Fisch 🐟 (1).bin" and there.read_bytes() == bytes(SIZE)
    assert (folder / sending.name).read_bytes() == path.read_bytes()


def test_a_file_that_changes_is_not_sent_as_it_is(path: Path, folder: Path) -> None:
    pair = Pair(path, folder)
    pair.run(2)
    path.write_bytes(os.urandom(SIZE))
    with pytest.raises(Refused, match="has changed"):
        pair.run()


def test_wrong_bytes_do_not_get_the_name(path: Path, folder: Path) -> None:
    pair = Pair(path, folder)
    pair.run(2)
    (part,) = folder.glob(".*.part")
    pair.source._digest.update(b"another")
    while pair.sending.state == "sending" and isinstance(what := pair.sending.next(), bytes):
        pair.receiving.take_data(what)
    assert isinstance(what, End)
    (failed,) = pair.receiving.take(what)
    pair.sending.take(failed)
    sending = pair.sending
    assert (sending.state, sending.may_repeat) == ("failed", True) and "not what was sent" in sending.why
    assert [each.name for each in folder.iterdir()] == [part.name]


def test_what_a_stranger_may_say(folder: Path) -> None:
    for name in ("../x", "a/b", "..", ".", "", "a\0b", "a\nb", "x" * 256):
        with pytest.raises(Refused):
            decode(encode(Offered("0" * 16, name, 1, 0)))
    receiving = Receiving(lambda offered: FilePart(folder, "bob", offered))
    (too_large,) = receiving.take(Offered("0" * 16, "x", 2**52, 0))
    assert isinstance(too_large, Failed) and "no room" in too_large.why and list(folder.iterdir()) == []
    assert receiving.take_data(b"unasked") == []
    receiving.take(Offered("0" * 16, "x", 3, 0))
    (wrong,) = receiving.take(decode('{"type": "start", "id": "0000000000000000", "at": 2}'))
    assert isinstance(wrong, Failed)
    receiving.take(Offered("0" * 16, "y", 3, 0))
    receiving.take(decode('{"type": "start", "id": "0000000000000000", "at": 0}'))
    (more,) = receiving.take_data(b"more than 3")
    assert isinstance(more, Failed) and "more came" in more.why


def test_what_the_receiver_says_can_be_shown(path: Path, folder: Path) -> None:
    pair = Pair(path, folder)
    pair.sending.offer()
    pair.sending.take(Failed("0" * 16, "\x1b[2Jno"))
    assert pair.sending.why == "\ufffd[2Jno"


def test_nothing_that_comes_is_hidden(tmp_path: Path, folder: Path) -> None:
    (hidden := tmp_path / ".bash_profile").write_text("evil")
    for _ in range(2):  # the second time it is there, and known
        pair = Pair(hidden, folder)
        assert pair.run().name == "_bash_profile"
        pair.die()
    assert [each.name for each in folder.iterdir()] == ["_bash_profile"]


def test_half_files_are_kept_for_a_while(path: Path, folder: Path) -> None:
    pair = Pair(path, folder)
    pair.run(1)
    (folder / ".mine.part").touch()
    file_disk.forget_old(folder, time.time())
    assert len(list(folder.iterdir())) == 2
    file_disk.forget_old(folder, time.time() + file_disk.KEPT_S + 60)
    assert [each.name for each in folder.iterdir()] == [".mine.part"]
