"""A bare WebRTC player in a page of Chromium, to which a test brings the answer; and what Chromium's stats say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from playwright.sync_api import Page

# Offers to receive, and waits for all candidates: the complete offer.
_OFFER = """async iceServers => {
  const pc = window.pc = new RTCPeerConnection({iceServers});
  const video = window.video = document.body.appendChild(document.createElement('video'));
  video.muted = video.autoplay = true;
  pc.ontrack = event => { video.srcObject = event.streams[0] ?? new MediaStream([event.track]); };
  pc.addTransceiver('video', {direction: 'recvonly'});
  await pc.setLocalDescription(await pc.createOffer());
  await new Promise(resolve => {
    const look = () => pc.iceGatheringState === 'complete' && resolve();
    pc.onicegatheringstatechange = look; look();
  });
  return pc.localDescription.sdp;
}"""
_ANSWER = "sdp => pc.setRemoteDescription({type: 'answer', sdp})"
# Every peer connection that a page makes from now on is to be found in `window.peers`.
REMEMBER = """() => {
  const Made = window.RTCPeerConnection;
  window.peers = [];
  window.RTCPeerConnection = class extends Made { constructor(...said) { super(...said); window.peers.push(this); } };
}"""
# What a peer connection says of the pair of candidates that it uses, and of the pictures that came.
_STATS = """async () => {
  const pc = window.pc ?? window.peers.findLast(each => each.connectionState === 'connected');
  if (!pc) return null;
  const all = [...(await pc.getStats()).values()], byId = Object.fromEntries(all.map(each => [each.id, each]));
  const transport = all.find(each => each.type === 'transport' && each.selectedCandidatePairId);
  const pair = byId[transport?.selectedCandidatePairId];
  const video = all.find(each => each.type === 'inbound-rtp' && each.kind === 'video');
  if (!pair || !video) return null;
  return {local: byId[pair.localCandidateId].candidateType, remote: byId[pair.remoteCandidateId].candidateType,
          codec: byId[video.codecId]?.mimeType ?? '', decoded: video.framesDecoded ?? 0, bytes: video.bytesReceived,
          lost: video.packetsLost};
}"""


def offer(page: Page, ice_servers: Sequence[Mapping[str, Any]] = ()) -> str:
    """The complete SDP of a page that wants to see something."""
    return str(page.evaluate(_OFFER, list(ice_servers)))


def answer(page: Page, sdp: str) -> None:
    """Bring it what the other side says."""
    page.evaluate(_ANSWER, sdp)


def stats(page: Page) -> dict[str, Any] | None:
    """What its connected peer connection says; None while there is none."""
    found: dict[str, Any] | None = page.evaluate(_STATS)
    return found


def path_of(said: Mapping[str, Any]) -> str:
    """`direct` or `relayed`, by what stats say."""
    return "relayed" if "relay" in (said["local"], said["remote"]) else "direct"


def asked_go2rtc(sdp: str) -> bytes:
    """The body of POST /api/webrtc."""
    return json.dumps({"type": "offer", "sdp": sdp}).encode()
