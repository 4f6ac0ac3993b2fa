"""Plane 2: each IP packet is one DTLS record, beside SCTP on the same session, and no cryptography is ours.

Nothing is acknowledged, sent again or put in order: what the path does to packets, it does to these. What is not SCTP
(it begins with its port, 0x1388) says by its first byte what it is: an IP packet has 4 or 6 in the upper half; those
below are ours. Only agents that both have said so in their signed capabilities send any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiortc import RTCDtlsTransport

from procs.agent.dtls import Dtls

MTU = 1380  # with all that goes around it, less than 1,500 bytes on IPv6 and through TURN
MAX_PACKET = 2048
PROBE, ANSWER, FRAME, HELLO = b"\x01", b"\x02", b"\x03", b"\x04"
RECENT = 16  # probes whose answer still counts
_NUMBER_BYTES = 8
_IP = frozenset((*range(0x40, 0x50), *range(0x60, 0x70)))  # how its packets begin


class Records:
    """Packets over one DTLS session. `on_packets`, `on_answer` and `on_hello` (of lane/keying.py) may be set at any
    time. What is ours goes ahead of packets that wait: a probe behind a flood would say that nothing passes."""

    mtu = MTU

    def __init__(self, transport: RTCDtlsTransport) -> None:
        self.on_packets: Callable[[Sequence[bytes]], None] = lambda packets: None
        self.on_answer: Callable[[], None] = lambda: None
        self.on_hello: Callable[[bytes], None] = lambda hello: None
        self.sent = self.received = self.dropped = self.sent_bytes = self.received_bytes = 0
        self._probe = 0
        self.dtls = Dtls(transport, self._take)

    def send(self, packets: Sequence[bytes]) -> int:
        """Send these, as many as there is room for; how many that was."""
        records = [each if each[0] in _IP else FRAME + each for each in packets if 0 < len(each) <= MAX_PACKET]
        taken = self.dtls.write(records)
        self.sent += taken
        self.sent_bytes += sum(map(len, records))
        self.dropped += len(packets) - taken
        return taken

    def probe(self) -> None:
        """Ask the other side for an answer, both as long as a packet can be: a path may be too narrow for those."""
        self._probe += 1
        self.dtls.write([_padded(PROBE, self._probe.to_bytes(_NUMBER_BYTES, "big"))], ahead=True)

    def hello(self, text: bytes) -> None:
        """Tell the other side this of the lane."""
        self.dtls.write([HELLO + text], ahead=True)

    def _take(self, texts: list[bytes]) -> None:
        packets = [each for each in texts if each[0] in _IP]
        if len(packets) < len(texts):
            packets += [each[1:] for each in texts if each[:1] == FRAME and len(each) > 1]
            for each in texts:
                self._control(each)
        if packets:
            self.received += len(packets)
            self.received_bytes += sum(map(len, packets))
            self.on_packets(packets)

    def _control(self, text: bytes) -> None:
        number = text[1 : 1 + _NUMBER_BYTES]
        if text[:1] == PROBE:
            # No longer than what asks for it.
            self.dtls.write([_padded(ANSWER, number)[: len(text)]], ahead=True)
        elif text[:1] == ANSWER and 0 <= self._probe - int.from_bytes(number, "big") < RECENT:
            self.on_answer()
        elif text[:1] == HELLO:
            self.on_hello(text[1:])


def _padded(kind: bytes, number: bytes) -> bytes:
    return (kind + number).ljust(MTU, b"\0")
