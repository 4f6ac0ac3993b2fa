"""Which of the pairs that both sides have agreed on is used, where aioice takes the last."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aioice import Candidate, Connection
from aioice.candidate import candidate_priority
from aioice.ice import CandidatePair
from aiortc import RTCPeerConnection

from procs.agent import ice, nomination
from procs.webrtc_peer.peer import Peer


def pair(kind: str) -> Any:
    """From a candidate of this kind of ours, on which a check has passed."""
    ours = Candidate(kind, 1, "udp", candidate_priority(1, kind), "192.0.2.1", 1, kind)
    theirs = Candidate("theirs", 1, "udp", candidate_priority(1, "srflx"), "192.0.2.2", 2, "srflx")
    made = CandidatePair(SimpleNamespace(local_candidate=ours), theirs)  # type: ignore[arg-type]
    made.state, made.nominated = CandidatePair.State.SUCCEEDED, True
    return made


def agree(connection: Connection, *kinds: str) -> str:
    """That these pairs are nominated, one after the other. The path then."""
    for kind in kinds:
        connection.check_complete(pair(kind))
    return ice.path_of(connection)


def test_of_pairs_nominated_at_once_the_best_is_kept_and_later_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        now = 1000.0
        monkeypatch.setattr(nomination, "time", SimpleNamespace(monotonic=lambda: now))
        connection = Connection(ice_controlling=False)
        nomination.keep_the_best(connection)
        assert agree(connection, "relay") == "relayed"
        assert agree(connection, "host") == "direct"
        now += nomination.AT_ONCE_S / 2
        assert agree(connection, "relay") == "direct"
        now += nomination.AT_ONCE_S
        assert agree(connection, "relay") == "relayed"  # the way straight may be there no more

    asyncio.run(scenario())


def test_a_viewer_that_nominates_all_its_pairs_is_sent_its_pictures_straight() -> None:
    async def scenario() -> None:
        viewer = RTCPeerConnection()
        viewer.addTransceiver("video", direction="recvonly")
        sdp = (await viewer.createOffer()).sdp
        nobody: Any = SimpleNamespace(add=lambda sender: None)
        peer = Peer([], (40000, 50000), nobody, lambda *_: None, lambda: None, lambda _: None)
        await peer.answer(sdp, ["h264"], "42e01f")
        assert peer._connection  # which the answer makes
        assert agree(peer._connection, "host", "relay") == "direct" == peer.path
        await peer.close()
        await viewer.close()

    asyncio.run(scenario())
