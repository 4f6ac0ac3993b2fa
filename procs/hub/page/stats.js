/** What is told of a picture beside it: how large, how much, how well, by which path. Pure. */

import { percent, rate, shortly } from "./words.js";

/** The numbers in what RTCPeerConnection.getStats says. */
export function measured(reports) {
  const byId = new Map(reports.map((each) => [each.id, each]));
  const video = reports.find(({ type, kind }) => type === "inbound-rtp" && kind === "video") ?? {};
  const pair = byId.get(reports.find(({ type }) => type === "transport")?.selectedCandidatePairId) ?? chosen(reports);
  const ends = [pair?.localCandidateId, pair?.remoteCandidateId].map((id) => byId.get(id)?.candidateType);
  return {
    at: video.timestamp ?? 0,
    bytes: video.bytesReceived ?? 0,
    received: video.packetsReceived ?? 0,
    lost: video.packetsLost ?? 0,
    width: video.frameWidth ?? 0,
    height: video.frameHeight ?? 0,
    roundTripMs: 1000 * (pair?.currentRoundTripTime ?? NaN),
    path: pair ? (ends.includes("relay") ? "relayed" : "direct") : "",
  };
}

/** Where no transport tells which pair of addresses it uses. */
function chosen(reports) {
  return reports.find(({ type, nominated, state }) => type === "candidate-pair" && nominated && state === "succeeded");
}

/** What has happened from one measurement to the next, in words: {term: words}. */
export function inWords(now, before) {
  const seconds = before ? (now.at - before.at) / 1000 : 0;
  const lost = before ? Math.max(0, now.lost - before.lost) : 0;
  const sent = before ? lost + now.received - before.received : 0;
  return {
    ...(now.width && { Resolution: `${now.width} × ${now.height}` }),
    ...(seconds > 0 && { "Bit rate": rate((8 * (now.bytes - before.bytes)) / seconds) }),
    ...(sent > 0 && { Lost: percent(lost / sent) }),
    ...(now.roundTripMs >= 0 && { "Round trip": shortly(now.roundTripMs) }),
    ...(now.path && { Path: now.path }),
  };
}
