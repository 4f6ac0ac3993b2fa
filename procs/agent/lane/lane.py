"""The lane to one peer: its keys, whether it is up, where the peer is, how wide the path. It holds no socket: it is
told the time and what has come, and gives what is to be sent.

Packets go out under the newest keys by which something has come: whatever was said of them, the other side has those.
Older ones still open what is on its way, for a while. It is up while pings are answered; else packets take the other
planes of the session.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence

from procs import log
from procs.agent.lane import mtu, slices
from procs.agent.lane.keying import NONCE_BYTES
from procs.agent.lane.mtu import SMALL, PathMtu
from procs.agent.lane.slices import CONTROL, Incoming
from procs.agent.lane.way import Address
from procs.messages.tunnel import LaneKeys
from procs.wire.records import OVERHEAD, REKEY_RECORDS, Opener, Sealer

UP_S = 2.0  # since the last answer
ANSWERS = 3  # in a row, before packets come back
LEASE_S = 30.0  # of keys, since anything was heard of the peer or of a session with it
REKEY_S, LATE_S = 120.0, 180.0  # until other keys are to be had; then until there are none
KEPT_S = 10.0  # the keys before those of now
PINGS = 64  # whose answers still count
MOST_PAIRS = 4  # beside the one in use; also as many new ones in FRESH_S, after which keys are said again
FRESH_S = 1.0
MOST_HAD = 64  # keys of one nonce
UNANSWERED = 64 * 1024  # bytes to where a peer has moved, before it has answered there: it may be a victim's address
MOVE_S = 1.0  # between two moves
MOST_PONGS = 64  # between two looks of ours at what is due
_PING, _PONG = b"\x01", b"\x02"
_NUMBER_BYTES = 8
Run = tuple[bytes, int]  # datagrams behind each other, and the size of each


class Pair:
    """The keys of one pair of nonces, for both directions."""

    def __init__(self, keys: LaneKeys, now: float) -> None:
        self.mark = mark_of(keys)
        self.sealer, self.opener = Sealer(keys.sends), Opener(keys.receives)
        self.incoming = Incoming(self.opener)
        self.since, self.may_send = now, keys.may_send
        self.is_proven = False  # something has come by it
        self.ends_at = now + REKEY_S + LATE_S


class Lane:
    """`nonce` is what the session is to tell the other side now. `least` and `most` are of datagrams."""

    def __init__(self, peer: str, least: int, most: int) -> None:
        self.peer, self.nonce = peer, secrets.token_bytes(NONCE_BYTES)
        self.remote: Address | None = None
        self.is_up = False
        self.round_trip_ms: float | None = None
        self.rekeys = self.falls = self.moves = 0
        self.unread = 0  # records from elsewhere, where too many had proved to be bogus
        self.path = PathMtu(least, most)
        self.pairs: list[Pair] = []  # the newest last
        self._out: Pair | None = None
        self._had: set[bytes] = set()  # marks of all keys that this nonce has given
        self._pings: dict[bytes, tuple[float, int, Address | None]] = {}  # when it was sent, its size, where to
        self._answers = self._pongs = 0
        self._answered_at = self._heard_at = self._told_at = float("-inf")
        self._moved_at = float("-inf")
        self._credit: int | None = None  # bytes that may still go to where nobody has answered
        self._gone = {"forged": 0, "replayed": 0, "malformed": 0}  # of keys that are no more

    @property
    def mtu(self) -> int:
        """The largest packet that goes through whole."""
        return max(0, slices.mtu(self.path.size))

    @property
    def stats(self) -> dict[str, int]:
        """Counts, over all keys."""
        now = {
            "forged": sum(pair.opener.forged for pair in self.pairs),
            "replayed": sum(pair.opener.replayed for pair in self.pairs),
            "malformed": sum(pair.incoming.malformed for pair in self.pairs),
        }
        kept = {name: now[name] + self._gone[name] for name in now}
        return {"rekeys": self.rekeys, "falls": self.falls, "moves": self.moves, "unread": self.unread, **kept}

    # Keys

    def told(self, keys: LaneKeys, now: float) -> Pair | None:
        """A session has said these, which are of our nonce of now. A pair that is new here."""
        self._told_at = now
        if keys.host and (self.remote is None or now - self._heard_at > UP_S):
            self._move((keys.host, keys.port), now)
        mark = mark_of(keys)
        for pair in self.pairs:
            if pair.mark == mark:
                pair.may_send |= keys.may_send
                return None
        if mark in self._had:  # never a second time: its counter would begin again
            return None
        if len(self._had) >= MOST_HAD:
            self.renew()
            return None
        if sum(now - pair.since < FRESH_S for pair in self.pairs) >= MOST_PAIRS:  # a peer that tells nonce after nonce
            return None
        self._had.add(mark)
        pair = Pair(keys, now)
        self.pairs.append(pair)
        return pair

    def renew(self) -> None:
        """Have other keys, as soon as the session brings some."""
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self._had.clear()

    def expire(self, now: float) -> list[Pair]:
        """Ask for new keys when it is time to; those that are over."""
        if self._had and self.pairs:
            newest = self.pairs[-1]
            if now - newest.since >= REKEY_S or newest.sealer.count >= REKEY_RECORDS:
                self.renew()
        is_left = now - max(self._heard_at, self._told_at) > LEASE_S
        gone = [pair for pair in self.pairs if is_left or now > pair.ends_at]
        spare = [pair for pair in self.pairs if pair is not self._out and pair not in gone]
        gone += spare[: max(0, len(self.pairs) - len(gone) - MOST_PAIRS)]
        for pair in gone:
            self._forget(pair)
        if self._had and not self.pairs:
            self.renew()
        return gone

    def _forget(self, pair: Pair) -> None:
        self.pairs.remove(pair)
        if pair is self._out:
            self._out = None
        self._gone["forged"] += pair.opener.forged
        self._gone["replayed"] += pair.opener.replayed
        self._gone["malformed"] += pair.incoming.malformed

    def _prove(self, pair: Pair, now: float) -> None:
        """The other side has these keys."""
        pair.is_proven = True
        place = self.pairs.index(pair)
        if self._out and place < self.pairs.index(self._out):
            return
        self.rekeys += self._out is not None
        self._out = pair
        for older in self.pairs[:place]:
            older.ends_at = min(older.ends_at, now + KEPT_S)

    # What comes

    def heard(self, pair: Pair, sender: Address | None, now: float) -> None:
        """Something new and genuine has come by these keys, the newest so far by them."""
        self._heard_at = now
        if not pair.is_proven and pair in self.pairs:
            self._prove(pair, now)
        if sender and sender != self.remote and pair is self._out:
            self._move(sender, now)

    def answers(self, pair: Pair, controls: Sequence[bytes], now: float) -> list[Run]:
        """What is to be sent for these texts of control."""
        pongs: list[bytes] = []
        for text in controls:
            kind, number = text[:1], text[1 : 1 + _NUMBER_BYTES]
            if kind == _PING and self._pongs < MOST_PONGS:
                self._pongs += 1
                pongs.append(_PONG + number + bytes([CONTROL]))
            elif kind == _PONG:
                self._answered(number, now)
        return _sealed(pair, pongs)

    def _answered(self, number: bytes, now: float) -> None:
        sent_at, size, to = self._pings.pop(number, (0.0, -1, None))
        if size < 0 or to != self.remote:
            return
        self.round_trip_ms = (now - sent_at) * 1000
        self._answered_at, self._credit = now, None
        self._answers += 1
        self.path.answered(size, sent_at, now)
        self.look(now)

    def _move(self, to: Address, now: float) -> None:
        if to == self.remote or now - self._moved_at < MOVE_S:
            return
        if self.remote:
            self.moves += 1
            self._moved_at, self._credit = now, UNANSWERED
            log.info("a peer is elsewhere", peer=self.peer, at=shown(to), before=shown(self.remote))
            self.path.moved()
        self.remote = to

    # What goes

    def seal(self, frames: Sequence[bytes]) -> Iterable[Run]:
        """Frames of the TUN as datagrams; none where nothing may go out now. Only while it is up."""
        if self._credit is not None:
            if self._credit <= 0:
                return []
            self._credit -= sum(map(len, frames))
        return slices.outgoing(self._out.sealer, frames, self.path.size) if self._out else []

    def pings(self, now: float) -> list[Run]:
        """Those that are due, some ten times a second."""
        self._pongs = 0
        pair = self._out or next((each for each in reversed(self.pairs) if each.may_send), None)
        if pair is None or self.remote is None:
            return []
        found = [run for size in self.path.due(now) for run in self._ping(pair, size, now)]
        newest = self.pairs[-1]
        if newest is not pair and newest.may_send and not newest.is_proven:
            found += self._ping(newest, SMALL, now)
        return found

    def _ping(self, pair: Pair, size: int, now: float) -> list[Run]:
        # Only who is there can know the number: else a peer could have all that is for it sent to a victim's address.
        number = secrets.token_bytes(_NUMBER_BYTES)
        if self._credit is not None:
            size = size if self._credit > 0 else SMALL
            self._credit -= size
        self._pings[number] = now, size, self.remote
        if len(self._pings) > PINGS:
            del self._pings[next(iter(self._pings))]
        text = _PING + number
        return _sealed(pair, [text.ljust(size - OVERHEAD - 1, b"\0") + bytes([CONTROL])])

    def look(self, now: float) -> None:
        """Whether it is up. It falls at once and comes back slowly."""
        answers = self._out is not None and now - self._answered_at <= UP_S
        if not answers:
            self._answers = 0
        enough = self._answers >= (ANSWERS if self.falls else 1)
        is_up = answers and self.path.is_settled and (self.is_up or enough)
        if is_up != self.is_up:
            self.is_up = is_up
            self.falls += not is_up
            if is_up:
                log.info("the fast lane to a peer is up", peer=self.peer, at=shown(self.remote), mtu=self.mtu)
            else:
                log.info("the fast lane to a peer is down", peer=self.peer, why=self._why())

    def unused(self, now: float) -> str:
        """Why packets take other planes, where there are keys: what is to be looked for, for people."""
        if self.is_up or not self.pairs:
            return ""
        if self.remote is None:
            if now - self.pairs[0].since <= mtu.QUICK_S:
                return ""
            return "no way leads from UDP port to UDP port: can a firewall have one of them open (PLANARIA_TUN_PORT)?"
        if not self.path.is_silent(now):
            return ""
        return f"the fast lane's pings are not answered: is UDP port {self.remote[1]} open there, and tun_pump up?"

    def _why(self) -> str:
        return "its pings are not answered" if self._out else "its keys are over"


def mark_of(keys: LaneKeys) -> bytes:
    """What is remembered of keys that are no more."""
    return hashlib.sha256(keys.sends).digest()


def shown(address: Address | None) -> str:
    """For people."""
    if address is None:
        return ""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sealed(pair: Pair, texts: list[bytes]) -> list[Run]:
    return [(record, len(record)) for text in texts if (record := pair.sealer.seal([text]))]
