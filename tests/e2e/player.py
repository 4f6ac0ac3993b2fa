"""A bare WebRTC player in a page of Chromium, and what it has seen: barcodes by the time of their pictures, and stats.

Its session comes from go2rtc's own WebRTC, to which a test brings offer and answer, or from our hub by the published
protocol alone. What is told of pictures and paths goes for any page that was told to `remember`: our own too.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from playwright.sync_api import Page

from procs.errors import Refused
from procs.media import barcode

# In every page that is opened from now on: the peer connections that it makes are in `peers`, and each picture that its
# first video shows is in `seen`: [shown at (ms since the Unix epoch), the barcode's 128 cells as 0 and 1].
_REMEMBER = """(() => {
  const Made = window.RTCPeerConnection;
  window.peers = [];
  window.RTCPeerConnection = class extends Made {
    constructor(...said) { super(...said); window.peers.push(this); }
  };
  window.seen = [];
  const canvas = document.createElement('canvas');
  canvas.width = 96; canvas.height = 12; // three pixels a cell: the middle one is read
  const context = canvas.getContext('2d', {willReadFrequently: true});
  function read(video) {
    const lines = Math.floor(video.videoHeight * 4 / 36);
    context.drawImage(video, 0, video.videoHeight - lines, video.videoWidth, lines, 0, 0, 96, 12);
    const rgba = context.getImageData(0, 0, 96, 12).data;
    let text = '';
    for (let row = 0; row < 4; row++)
      for (let column = 0; column < 32; column++)
        text += rgba[4 * ((3 * row + 1) * 96 + 3 * column + 1)] > 127 ? '1' : '0';
    return text;
  }
  function follow(video) {
    const next = () => video.requestVideoFrameCallback(() => {
      window.seen.push([performance.timeOrigin + performance.now(), read(video)]);
      if (window.seen.length > 20000) window.seen.shift();
      next();
    });
    next();
  }
  const known = new WeakSet();
  setInterval(() => {
    for (const video of document.querySelectorAll('video'))
      if (!known.has(video)) { known.add(video); follow(video); }
  }, 5);
})();"""
_MADE = """
  const pc = new RTCPeerConnection({iceServers});
  const video = document.body.appendChild(document.createElement('video'));
  video.muted = video.autoplay = true;
  window.clicked = performance.timeOrigin + performance.now();
  pc.ontrack = event => { video.srcObject = event.streams[0] ?? new MediaStream([event.track]); };
  pc.addTransceiver('video', {direction: 'recvonly'});
"""
# Offers to receive, and waits for all candidates: the complete offer.
_OFFER = (
    "async iceServers => {"
    + _MADE
    + """
  await pc.setLocalDescription(await pc.createOffer());
  await new Promise(resolve => {
    const look = () => pc.iceGatheringState === 'complete' && resolve();
    pc.onicegatheringstatechange = look; look();
  });
  return pc.localDescription.sdp;
}"""
)
_ANSWER = "sdp => peers.at(-1).setRemoteDescription({type: 'answer', sdp})"
# A viewer of the published protocol; `told` is what the hub said.
_WATCH = (
    """({token, device, stream}) => new Promise((resolve, reject) => {
  const ws = window.ws = new WebSocket(location.origin.replace('http', 'ws') + '/ws/viewer');
  window.told = [];
  const say = (type, payload) => ws.send(JSON.stringify({type, ts: new Date().toISOString(), payload}));
  const offer = async (session_id, iceServers) => {"""
    + _MADE
    + """
    window.pc = pc;
    window.session = session_id;
    window.clicked = window.asked;
    pc.onicecandidate = ({candidate}) =>
      say('signal_ice', {session_id, candidate: candidate?.candidate ? candidate.toJSON() : null});
    await pc.setLocalDescription(await pc.createOffer());
    say('signal_offer', {session_id, sdp: {type: 'offer', sdp: pc.localDescription.sdp}});
    resolve(session_id);
  };
  ws.onerror = () => reject(new Error('the WebSocket'));
  ws.onopen = () => say('hello', {token});
  ws.onmessage = async ({data}) => {
    const {type, payload} = JSON.parse(data);
    told.push([type, payload]);
    if (type === 'hello_ack') {
      window.asked = performance.timeOrigin + performance.now();
      say('watch_request', stream ? {device_id: device, stream} : {device_id: device});
    }
    if (type === 'error') reject(new Error(payload.message));
    if (type === 'watch_ready') await offer(payload.session_id, payload.ice_servers);
    if (type === 'signal_answer') await pc.setRemoteDescription(payload.sdp);
    if (type === 'signal_ice' && payload.candidate) await pc.addIceCandidate(payload.candidate);
  };
})"""
)
# What the newest connected peer connection says of the pair of candidates that it uses, and of its pictures.
_STATS = """async () => {
  const pc = window.peers.findLast(each => each.connectionState === 'connected');
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


class Picture(NamedTuple):
    """One that was shown: when, in ms since the Unix epoch, and what stands in it."""

    shown_ms: float
    code: barcode.Code

    @property
    def age_ms(self) -> float:
        """Since it was made: glass to glass."""
        return self.shown_ms - self.code.time_us / 1000


def remember(page: Page) -> None:
    """Before it goes anywhere: what it shows from then on can be asked for."""
    page.add_init_script(_REMEMBER)


def offer(page: Page, ice_servers: Sequence[Mapping[str, Any]] = ()) -> str:
    """The complete SDP of a page that wants to see something."""
    return str(page.evaluate(_OFFER, list(ice_servers)))


def answer(page: Page, sdp: str) -> None:
    """Bring it what the other side says."""
    page.evaluate(_ANSWER, sdp)


def asked_go2rtc(sdp: str) -> bytes:
    """The body of POST /api/webrtc."""
    return json.dumps({"type": "offer", "sdp": sdp}).encode()


def watch(page: Page, token: str, device: str, stream: str = "") -> str:
    """Have a page of the hub watch a device; the session's id."""
    return str(page.evaluate(_WATCH, {"token": token, "device": device, "stream": stream}))


def told(page: Page, kind: str) -> list[dict[str, Any]]:
    """The payloads of all that the hub said of this type."""
    return [payload for type_, payload in page.evaluate("() => window.told ?? []") if type_ == kind]


def pictures(page: Page) -> list[Picture]:
    """All that it has shown and that could be read, in their order."""
    found = []
    for shown_ms, cells in page.evaluate("() => window.seen"):
        with contextlib.suppress(Refused):
            found.append(Picture(shown_ms, barcode.decode(int(cells, 2).to_bytes(barcode.CODE_BYTES, "big"))))
    return found


def clicked_ms(page: Page) -> float:
    """When it asked for the stream."""
    return float(page.evaluate("() => window.clicked"))


def freeze_ms(seen: Sequence[Picture], since_ms: float) -> float | None:
    """The longest time that one picture stood, of those that ended after that moment; None before one has ended."""
    changes = [later for earlier, later in pairwise(seen) if later.code != earlier.code]
    stood = [later.shown_ms - earlier.shown_ms for earlier, later in pairwise(changes) if later.shown_ms > since_ms]
    return max(stood, default=None)


def stats(page: Page) -> dict[str, Any] | None:
    """What its connected peer connection says; None while there is none."""
    found: dict[str, Any] | None = page.evaluate(_STATS)
    return found


def path_of(said: Mapping[str, Any]) -> str:
    """`direct` or `relayed`, by what stats say."""
    return "relayed" if "relay" in (said["local"], said["remote"]) else "direct"
