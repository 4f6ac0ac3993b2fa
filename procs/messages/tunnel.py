"""The tunnel: between tun_pump, the children of webrtc_peer that have a session with a peer each, and their leader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from procs.messages import decoder
from procs.messages.limits import Count, Figure, Name, Reason, SessionId, Where

Ufrag = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]  # of an ICE connection (RFC 8839)
Host = Annotated[str, msgspec.Meta(max_length=64)]  # an address
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
PeerKey = Annotated[str, msgspec.Meta(max_length=44)]

# Why a peer is down while it is not known whether it can be met. The first two are tun_pump's, which has heard nothing.
NOT_TRIED_YET = "not tried yet"
SESSION_GONE = "what had its session is gone, and is being started again"
NO_SERVER_YET = "no answer from the signalling server yet"
UNDECIDED = (NOT_TRIED_YET, SESSION_GONE, NO_SERVER_YET)
# The signalling server has taken us: something of this peer came by it.
NO_SESSION_YET = "no session with it yet"
# How PeerAway says what is wrong where the signalling server is.
OF_SERVER = "the signalling server: "


class PeerUp(msgspec.Struct, frozen=True, tag="peer_up"):
    """Who has a session for IP packets to tun_pump, at once after its start or tun_pump's and each second: packets go
    to this peer. One that is silent for 3 s is forgotten.

    `at` and `seen` are of procs/agent/conduit.py, as in PumpUp and Packets. `key` is the one by which the peer has
    proven who it is, "" for one that has not: what was agreed with another key's owner is void.
    """

    peer: SessionId
    pid: Annotated[int, msgspec.Meta(gt=0)]
    mtu: Annotated[int, msgspec.Meta(ge=576, le=65535)]  # of an IP packet that it takes whole
    plane: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0  # 0: a peer that is not ours, one packet a message
    path: Literal["", "direct", "relayed"] = ""
    remote: Where = ""  # the address that it is reached at
    stats: Annotated[dict[Name, Figure], msgspec.Meta(max_length=64)] = {}
    at: Count = 0
    seen: Count = 0
    key: PeerKey = ""
    most: Annotated[int, msgspec.Meta(ge=576, le=65535)] = 65535  # of an IP packet that the peer takes on any plane


class PeerAway(msgspec.Struct, frozen=True, tag="peer_away"):
    """Such a one to tun_pump, at each change and each second while there is no session: why that is. `key`: by which
    the peer would be let in now, "" for none: what was agreed with another key's owner is void, as when it was
    revoked."""

    peer: SessionId
    pid: Annotated[int, msgspec.Meta(gt=0)]
    why: Reason
    key: PeerKey = ""


class PumpUp(msgspec.Struct, frozen=True, tag="pump_up"):
    """tun_pump to who said PeerUp, PeerAway or Listening, at once after its own start or theirs, when the nonce is
    another, and each second: the interface is there, and is like this."""

    mtu: Annotated[int, msgspec.Meta(ge=576, le=65535)]
    addresses: Annotated[list[Name], msgspec.Meta(max_length=16)] = []  # such as 10.77.0.1/24
    at: Count = 0
    seen: Count = 0
    port: Port = 0  # of UDP, by which all peers may reach us; 0: there is none
    nonce: Annotated[bytes, msgspec.Meta(max_length=16)] = b""  # ours, of the keys of plane 3 for this peer
    pid: Count = 0


class Packets(msgspec.Struct, frozen=True, tag="packets"):
    """tun_pump to who said PeerUp, and back: IP packets, which travel beside it; none, where only `seen` is news."""

    at: Count  # bytes of bodies that its sender has sent here so far, this one's among them
    seen: Count  # the last `at` that it has heard from the other side


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """Who has a session, or is about to, to tun_pump, at once after its start or tun_pump's, at each change and each
    second: what comes to the port for these ICE connections is for it. One that is silent for 3 s is forgotten.

    `heard`: where datagrams of each have come from, for a tun_pump that is new and would not know whose those are.
    `at` and `seen` are of procs/agent/conduit.py, of datagrams, as in Depart, Arrive and Reached.
    """

    peer: SessionId
    pid: Annotated[int, msgspec.Meta(gt=0)]
    ufrags: Annotated[list[Ufrag], msgspec.Meta(max_length=16)]
    heard: Annotated[
        dict[Ufrag, Annotated[list[tuple[Host, Port]], msgspec.Meta(max_length=8)]], msgspec.Meta(max_length=16)
    ] = {}
    at: Count = 0
    seen: Count = 0


class Depart(msgspec.Struct, frozen=True, tag="depart"):
    """Such a one to tun_pump: datagrams for the port to send, which travel beside it behind each other, each of `step`
    bytes but the last, which may be shorter."""

    ufrag: Ufrag
    local: Host  # the address of ours that they go out from
    host: Host
    port: Port
    step: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    at: Count
    seen: Count


class Arrive(msgspec.Struct, frozen=True, tag="arrive"):
    """tun_pump to such a one: datagrams that have come to the port, which travel beside it as packets do."""

    ufrag: Ufrag
    local: Host  # the address of ours that they came to
    host: Host
    port: Port
    at: Count
    seen: Count


class Reached(msgspec.Struct, frozen=True, tag="reached"):
    """Both ways: how many bytes of datagrams have come, where nothing else goes there that says so."""

    at: Count
    seen: Count


class LaneKeys(msgspec.Struct, frozen=True, tag="lane_keys"):
    """Who has a session to whoever owns the port: keys of plane 3 for this peer, of the two nonces of now. Said again
    each second and at each change. One whose `mine` is not the nonce that its reader has given out is of another life,
    and is left alone. `may_send`: the other side has said that it has them, too."""

    peer: SessionId
    pid: Annotated[int, msgspec.Meta(gt=0)]
    mine: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    theirs: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    sends: Annotated[bytes, msgspec.Meta(min_length=24, max_length=24)]  # a secret of wire/records.py
    receives: Annotated[bytes, msgspec.Meta(min_length=24, max_length=24)]
    may_send: bool
    host: Host = ""  # where the peer is; "" where the way is none by our port
    port: Port = 0

    def __repr__(self) -> str:
        return f"LaneKeys({self.peer!r}, ...)"


class TunnelSpec(msgspec.Struct, frozen=True, tag="tunnel_spec"):
    """What a child of webrtc_peer is born with that has a session with another agent, for the tunnel."""

    me: SessionId
    peer: SessionId
    run_dir: str
    udp_range: tuple[int, int]
    ice_servers: list[dict[str, Any]]
    mtu: Annotated[int, msgspec.Meta(ge=576, le=65535)]
    addresses: list[str]
    trust: str  # whose keys are taken, as procs/agent/identity.py has it
    allow_unsigned: bool
    key: str = ""  # of the peer, where the settings name it
    label: str = "mvp"  # of the main channel

    def __repr__(self) -> str:
        return f"TunnelSpec({self.me!r}, {self.peer!r}, ...)"  # there are credentials in ice_servers


class AgentFrame(msgspec.Struct, frozen=True, tag="agent_frame"):
    """A frame of signalling between two agents, which travels beside it, between webrtc_peer and the child of that
    peer."""

    peer: SessionId


class Signalling(msgspec.Struct, frozen=True, tag="signalling"):
    """webrtc_peer to such a child, at its first beat and at each change: whether frames go out, and if not, why."""

    is_up: bool
    why: Reason = ""


class TunnelBeat(msgspec.Struct, frozen=True, tag="tunnel_beat"):
    """Such a child to webrtc_peer, at once after its start, at each change and each second: how its session is."""

    peer: SessionId
    pid: Annotated[int, msgspec.Meta(gt=0)]
    state: Literal["new", "connecting", "connected", "waiting", "closed"]
    why: Reason = ""  # it is not connected


ToPump = PeerUp | PeerAway | Packets | Listening | Depart | Reached | LaneKeys
FromPump = PumpUp | Packets | Arrive | Reached
FromTunnel = TunnelBeat | AgentFrame
ToTunnel = Signalling | AgentFrame

decode_to_pump: Callable[[bytes], ToPump] = decoder(ToPump)
decode_from_pump: Callable[[bytes], FromPump] = decoder(FromPump)
decode_from_tunnel: Callable[[bytes], FromTunnel] = decoder(FromTunnel)
decode_to_tunnel: Callable[[bytes], ToTunnel] = decoder(ToTunnel)
