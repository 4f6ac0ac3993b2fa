/** Plays one stream through the tunnel: go2rtc's own WebSocket, fragmented MP4 into Media Source Extensions. */

import { deviceCall } from "./api.js";
import { h, setText } from "./dom.js";
import { retryDelay } from "./live.js";

const CODECS = [
  "avc1.640029",
  "avc1.64002A",
  "avc1.640033",
  "hvc1.1.6.L153.B0",
  "mp4a.40.2",
  "mp4a.40.5",
  "flac",
  "opus",
];
const BEHIND_MAX_S = 2; // behind the newest picture, before it jumps there
const EDGE_S = 0.2;
const KEPT_S = 10;
const DRY_MS = 15_000; // without a byte; an idle camera has to start first
const MAX_WAITING = 64; // pieces that the browser has not taken: it can't keep up

const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;

/** A <video> with its state in words, until the signal. It connects again by itself, and not while nobody looks. */
export function player(deviceId, name, signal) {
  const video = h("video", { autoplay: true, playsinline: true, controls: true, "aria-label": `Live: ${name}` });
  video.muted = true; // not by the attribute, which does not count for what a script has made
  video.disableRemotePlayback = true; // or Safari gives no source
  const said = h("p", { class: "over", role: "status" });
  if (Source) new Player(video, said, addressOf(deviceId, name), signal);
  else setText(said, "This browser can’t play live streams (it has no Media Source Extensions).");
  return h("div", { class: "player" }, video, said);
}

function addressOf(deviceId, name) {
  const path = `${deviceCall(deviceId, "proxy")}/api/ws?src=${encodeURIComponent(name)}`;
  return location.origin.replace("http", "ws") + path;
}

class Player {
  #video;
  #said;
  #address;
  #socket = null;
  #buffer = null;
  #waiting = [];
  #failures = 0;
  #retry = 0;
  #dry = 0;

  constructor(video, said, address, signal) {
    this.#video = video;
    this.#said = said;
    this.#address = address;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#end() : this.#begin()), { signal });
    signal.addEventListener("abort", () => this.#end());
    video.addEventListener("playing", () => this.#plays());
    this.#begin();
  }

  #begin() {
    this.#end();
    setText(this.#said, this.#failures ? "No picture. Trying again…" : "Waiting for the stream…");
    const source = new Source();
    this.#attach(source);
    source.addEventListener("sourceopen", () => this.#connect(source), { once: true });
    this.#watch();
  }

  /** A source that is replaced closes the one before. */
  #attach(source) {
    if (globalThis.ManagedMediaSource) {
      this.#video.srcObject = source;
      return;
    }
    this.#video.src = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => URL.revokeObjectURL(this.#video.src), { once: true });
  }

  #connect(source) {
    const socket = new WebSocket(this.#address);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    const codecs = CODECS.filter((codec) => Source.isTypeSupported(`video/mp4; codecs="${codec}"`));
    socket.onopen = () => socket.send(JSON.stringify({ type: "mse", value: codecs.join() }));
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#watch();
      if (typeof data === "string") this.#hear(source, JSON.parse(data));
      else this.#take(data);
    };
    socket.onclose = () => socket === this.#socket && this.#failed("No picture. Trying again…");
  }

  #hear(source, { type, value }) {
    if (type === "error") this.#failed(`The device says: ${value}`);
    if (type !== "mse" || this.#buffer) return;
    this.#buffer = source.addSourceBuffer(value);
    this.#buffer.mode = "segments";
    this.#buffer.addEventListener("updateend", () => this.#append());
    this.#append();
  }

  #take(piece) {
    this.#waiting.push(piece);
    if (this.#waiting.length > MAX_WAITING) this.#failed("This browser can’t keep up. Trying again…");
    else this.#append();
  }

  #append() {
    if (!this.#buffer || this.#buffer.updating) return;
    try {
      if (this.#waiting.length) this.#buffer.appendBuffer(this.#waiting.shift());
      else this.#trim();
    } catch (error) {
      this.#failed(`This browser can’t play it: ${error.message}`);
    }
  }

  /** Stay at the live edge, and keep no more than somebody may look back at. */
  #trim() {
    const { buffered, currentTime } = this.#video;
    if (!buffered.length) return;
    const start = buffered.start(0);
    const end = buffered.end(buffered.length - 1);
    if (end - currentTime > BEHIND_MAX_S && !this.#video.paused) this.#video.currentTime = end - EDGE_S;
    if (currentTime < start) this.#video.currentTime = start;
    if (end - start > 2 * KEPT_S) this.#buffer.remove(start, end - KEPT_S);
  }

  #plays() {
    this.#failures = 0;
    setText(this.#said, "");
  }

  /** What is open and says nothing is no stream. */
  #watch() {
    clearTimeout(this.#dry);
    this.#dry = setTimeout(() => this.#failed("No picture. Trying again…"), DRY_MS);
  }

  #failed(why) {
    this.#end();
    setText(this.#said, why);
    this.#retry = setTimeout(() => this.#begin(), 1000 * retryDelay(this.#failures++));
  }

  #end() {
    clearTimeout(this.#retry);
    clearTimeout(this.#dry);
    const socket = this.#socket;
    this.#socket = this.#buffer = null;
    this.#waiting = [];
    socket?.close();
  }
}
