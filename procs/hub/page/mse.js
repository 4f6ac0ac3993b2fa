/** Plays one stream through the hub: go2rtc's own WebSocket, fragmented MP4 into Media Source Extensions. It is for
 * where no picture comes straight from the device. */

import { deviceCall } from "./api.js";
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

export const canPlay = Boolean(Source);

function addressOf(deviceId, name) {
  const path = `${deviceCall(deviceId, "proxy")}/api/ws?src=${encodeURIComponent(name)}`;
  return location.origin.replace("http", "ws") + path;
}

export class Tunnelled {
  bytes = 0; // that have come
  #video;
  #on;
  #address;
  #source = null;
  #socket = null;
  #buffer = null;
  #waiting = [];
  #failures = 0;
  #retry = 0;
  #dry = 0;

  /** Plays in `video` until the signal. It connects again by itself, and not while nobody looks. Calls `picture()` when
   * there is one, `lost(why)` when there is none. */
  constructor(deviceId, name, video, on, signal) {
    this.#video = video;
    this.#on = on;
    this.#address = addressOf(deviceId, name);
    document.addEventListener("visibilitychange", () => this.#seen(), { signal });
    signal.addEventListener("abort", () => this.#end());
    video.addEventListener("playing", () => this.#plays(), { signal });
    this.#begin();
  }

  #seen() {
    if (!document.hidden && !this.#source) this.#begin();
    else if (document.hidden && document.pictureInPictureElement !== this.#video) this.#end();
  }

  #begin() {
    this.#end();
    const source = new Source();
    this.#source = source;
    this.#attach(source);
    source.addEventListener("sourceopen", () => this.#connect(source), { once: true });
    this.#watch();
  }

  /** A source that is replaced closes the one before. */
  #attach(source) {
    this.#video.srcObject = null; // it goes before an address
    if (globalThis.ManagedMediaSource) {
      this.#video.srcObject = source;
      return;
    }
    this.#video.src = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => URL.revokeObjectURL(this.#video.src), { once: true });
  }

  #connect(source) {
    if (source !== this.#source) return; // it has ended meanwhile
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
    socket.onclose = () => socket === this.#socket && this.#failed("No picture.");
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
    this.bytes += piece.byteLength;
    this.#waiting.push(piece);
    if (this.#waiting.length > MAX_WAITING) this.#failed("This browser can’t keep up.");
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
    this.#on.picture();
  }

  /** What is open and says nothing is no stream. */
  #watch() {
    clearTimeout(this.#dry);
    this.#dry = setTimeout(() => this.#failed("No picture."), DRY_MS);
  }

  #failed(why) {
    this.#end();
    this.#on.lost(why);
    this.#retry = setTimeout(() => this.#begin(), 1000 * retryDelay(this.#failures++));
  }

  #end() {
    clearTimeout(this.#retry);
    clearTimeout(this.#dry);
    const socket = this.#socket;
    this.#source = this.#socket = this.#buffer = null;
    this.#waiting = [];
    socket?.close();
  }
}
