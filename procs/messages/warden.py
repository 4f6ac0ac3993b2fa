"""What the warden is told unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec

from procs.messages import decoder
from procs.messages.limits import Count, Figure, Instance, Name, Reason, SessionId, StreamName, Where


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Any process to the warden, once a second while its main loop turns."""

    program: Name
    instance: Instance
    pid: Annotated[int, msgspec.Meta(gt=0)]
    serving: bool
    dropped: Count = 0  # pictures that it has left out so far


class WatchSession(msgspec.Struct, frozen=True):
    """How one watch session does, by its child's last Beat."""

    session_id: SessionId
    stream: StreamName
    state: Literal["new", "connecting", "connected"]
    path: Literal["", "direct", "relayed"]
    for_s: float  # since it was asked for
    bits_per_s: Figure  # of pictures, in the last second
    asked_bits_per_s: Figure  # what its viewer can take; 0: whatever comes
    loss: Figure  # fraction of packets, as the viewer has reported last
    round_trip_ms: Figure | None  # None: not known yet
    packets: Figure
    packets_lost: float  # a viewer may count below zero (RFC 3550)
    packets_again: Figure  # sent once more, since the viewer missed them
    dropped: Figure  # pictures left out until the next keyframe, since the viewer was too slow


class WatchTotals(msgspec.Struct, frozen=True):
    """What was sent of one stream to all its viewers since webrtc_peer started."""

    stream: StreamName
    sessions: Count = 0  # that have had a packet
    packets: Figure = 0.0
    octets: Figure = 0.0
    packets_lost: Figure = 0.0
    packets_again: Figure = 0.0
    dropped: Figure = 0.0


class Watching(msgspec.Struct, frozen=True, tag="watching"):
    """webrtc_peer to the warden, each second: who watches, and how that goes."""

    pid: Annotated[int, msgspec.Meta(gt=0)]
    sessions: Annotated[list[WatchSession], msgspec.Meta(max_length=64)]
    totals: Annotated[list[WatchTotals], msgspec.Meta(max_length=64)]


class TunnelPeer(msgspec.Struct, frozen=True):
    """How the tunnel to one peer does. Packets are counted since whoever tells was started."""

    peer: SessionId
    is_up: bool  # packets go to it
    plane: Count = 0  # as PeerUp has it, and so the next three; 3: on the fast lane, whatever the session has
    path: Literal["", "direct", "relayed"] = ""
    remote: Where = ""
    mtu: Count = 0
    round_trip_ms: Figure | None = None  # None: not known yet
    sent_packets: Count = 0
    sent_bytes: Count = 0
    received_packets: Count = 0
    received_bytes: Count = 0
    dropped: dict[str, int] = {}  # packets, by reason
    lane: dict[str, int] = {}  # of plane 3: how often it fell, moved and had new keys, and records that are refused
    why: Reason = ""  # it is not up
    slow: Reason = ""  # it is up, and not on the fast lane, which both sides know
    sent_bits_per_s: Figure | None = None  # in the last second; None: not known
    received_bits_per_s: Figure | None = None


class TunnelState(msgspec.Struct, frozen=True, tag="tunnel_state"):
    """tun_pump to the warden, each second: its interface, and how it does."""

    pid: Annotated[int, msgspec.Meta(gt=0)]
    interface: Instance  # "" while nothing is configured
    addresses: Annotated[list[Name], msgspec.Meta(max_length=16)] = []
    mtu: Count = 0
    peers: Annotated[list[TunnelPeer], msgspec.Meta(max_length=64)] = []
    dropped: dict[str, int] = {}  # packets that are of no peer, by reason
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0  # of UDP, by which all peers reach us; 0: there is none
    has_rules: bool = False  # of nft, which drop packets as well


class Sounding(msgspec.Struct, frozen=True, tag="sounding"):
    """audio_io to the warden, each second: counted since it was started, but for what its name says is so now."""

    pid: Annotated[int, msgspec.Meta(gt=0)]
    is_held: bool  # a backend holds the device
    connections: Count = 0
    turned_away: dict[str, int] = {}  # connections, by reason
    refused: dict[str, int] = {}  # events and packets, by reason
    figures: dict[str, int] = {}  # of the sound itself (procs/audio_io/sound.py)


ToWarden = Heartbeat | Watching | TunnelState | Sounding

decode_to_warden: Callable[[bytes], ToWarden] = decoder(ToWarden)
