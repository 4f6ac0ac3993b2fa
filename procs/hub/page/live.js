/** The WebSocket to the hub. It comes back by itself, and with it all that the views want to know. */

import { Failure } from "./api.js";
import { timeOf } from "./words.js";

const RETRY_MIN_S = 0.3;
const RETRY_MAX_S = 10;
const BEAT_MS = 20_000; // a link that is cut somewhere on its way gives no sign of that by itself
const SILENT_MS = 10_000;
const ANSWER_MS = 10_000;
const AWAY_AFTER_MS = 800; // a hub that is back sooner was not away for anybody

/** Before the attempt after so many that failed: full jitter, so that not all pages come back at once. */
export function retryDelay(failures, random = Math.random()) {
  return RETRY_MIN_S + random * Math.min(RETRY_MAX_S - RETRY_MIN_S, RETRY_MIN_S * 2 ** failures);
}

/** Dispatches each frame under its type, with its payload as detail; besides "up", "away", and "doubt" before each
 * attempt to come back: whether the session still is good can't be told from a WebSocket that was refused. */
class Live extends EventTarget {
  isUp = false;
  isAway = false; // what is shown was last known
  #socket = null;
  #isWanted = false;
  #failures = 0;
  #retry = 0;
  #beat = 0;
  #silence = 0;
  #awayLater = 0;
  #skewMs = 0;
  #wants = new Set();
  #isToldLater = false;
  #asks = 0;
  #asked = new Map(); // request id -> who waits for its answer

  constructor() {
    super();
    addEventListener("online", () => this.#hurry());
    addEventListener("offline", () => this.#cutOff());
    document.addEventListener("visibilitychange", () => document.hidden || this.#hurry());
  }

  /** What time it is for the hub: the clock of a phone may be wrong. */
  now() {
    return Date.now() + this.#skewMs;
  }

  /** Connect, and stay so until `end`. */
  start() {
    this.#isWanted = true;
    if (!this.#socket) this.#connect();
  }

  end() {
    this.#isWanted = false;
    clearTimeout(this.#retry);
    this.#drop();
    this.#isBack();
  }

  /** Have the hub tell of the suites and the events of these devices, until the signal. */
  want({ suite = [], events = [] }, signal) {
    const wanted = { suite, events };
    this.#wants.add(wanted);
    signal.addEventListener("abort", () => {
      this.#wants.delete(wanted);
      this.#subscribeLater();
    });
    this.#subscribeLater();
  }

  /** There is no network. A hub on this machine still answers: a new connection tells. */
  #cutOff() {
    if (!this.#isWanted) return;
    this.#goAway();
    this.#drop();
  }

  #goAway() {
    this.isAway = true;
    this.dispatchEvent(new Event("away"));
  }

  #isBack() {
    clearTimeout(this.#awayLater);
    this.#awayLater = 0;
    this.isAway = false;
  }

  #drop() {
    const socket = this.#socket;
    if (!socket) return;
    socket.close();
    this.#lost(socket);
  }

  #hurry() {
    if (!this.#isWanted || this.isUp) return;
    this.#drop(); // what still waits was sent into the void
    clearTimeout(this.#retry);
    this.#connect();
  }

  #connect() {
    const socket = new WebSocket(`${location.origin.replace("http", "ws")}/ws/viewer`);
    this.#socket = socket;
    this.#listenFor();
    socket.onopen = () => this.say("hello", { caps: ["resume"] });
    socket.onmessage = ({ data }) => this.#hear(socket, JSON.parse(data));
    socket.onclose = () => this.#lost(socket);
  }

  /** Send a frame; without a connection there is nobody to hear it. */
  say(type, payload, requestId) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify({ type, ts: new Date().toISOString(), payload, request_id: requestId }));
  }

  /** What the hub answers to a frame. Raises Failure. */
  ask(type, payload) {
    if (!this.isUp) return Promise.reject(new Failure("The hub is away."));
    return new Promise((resolve, reject) => {
      const id = `page-${++this.#asks}`;
      const late = setTimeout(() => this.#answer(id, "error", { message: "The hub did not answer." }), ANSWER_MS);
      this.#asked.set(id, { resolve, reject, late });
      this.say(type, payload, id);
    });
  }

  #answer(id, type, payload) {
    const { resolve, reject, late } = this.#asked.get(id);
    clearTimeout(late);
    this.#asked.delete(id);
    if (type === "error") reject(new Failure(payload.message));
    else resolve(payload);
  }

  #hear(socket, { type, payload, request_id }) {
    if (socket !== this.#socket) return;
    this.#listenFor();
    if (type === "hello_ack") this.#welcome(payload);
    if (this.#asked.has(request_id)) this.#answer(request_id, type, payload);
    this.dispatchEvent(new CustomEvent(type, { detail: payload }));
  }

  #welcome({ server_time }) {
    this.#skewMs = (timeOf(server_time) || Date.now()) - Date.now();
    this.isUp = true;
    this.#isBack();
    this.#failures = 0;
    this.#subscribe();
    this.dispatchEvent(new Event("up"));
  }

  /** Somebody who is silent is asked; who stays silent is given up. */
  #listenFor() {
    clearTimeout(this.#beat);
    clearTimeout(this.#silence);
    this.#beat = setTimeout(() => this.say("heartbeat", {}), BEAT_MS);
    this.#silence = setTimeout(() => this.#drop(), BEAT_MS + SILENT_MS);
  }

  #lost(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    clearTimeout(this.#beat);
    clearTimeout(this.#silence);
    this.isUp = false;
    for (const id of [...this.#asked.keys()]) this.#answer(id, "error", { message: "The hub is away." });
    if (!this.#isWanted) return;
    this.#awayLater ||= setTimeout(() => this.#goAway(), AWAY_AFTER_MS);
    this.#retry = setTimeout(() => this.#comeBack(), 1000 * retryDelay(this.#failures++));
  }

  #comeBack() {
    this.dispatchEvent(new Event("doubt"));
    if (this.#isWanted && !this.#socket) this.#connect();
  }

  /** Views come and go in one turn; the hub hears of the outcome. */
  #subscribeLater() {
    if (this.#isToldLater) return;
    this.#isToldLater = true;
    queueMicrotask(() => {
      this.#isToldLater = false;
      if (this.isUp) this.#subscribe();
    });
  }

  #subscribe() {
    const all = (what) => [...new Set([...this.#wants].flatMap((wanted) => wanted[what]))];
    this.say("subscribe", { devices: true, suite: all("suite"), events: all("events") });
  }
}

export const live = new Live();

/** How something is, or was when the hub last told. */
export function asKnown(state) {
  return live.isAway ? `last known: ${state}` : state;
}
