/** Watches one stream: straight from the device where there is a way, through the hub where there is none. What breaks
 * is asked for again while the last picture stays; whichever moves first is shown. */

import { h, setText } from "./dom.js";
import { fleet } from "./fleet.js";
import { Frames } from "./frames.js";
import { live, retryDelay } from "./live.js";
import { Tunnelled, canPlay } from "./mse.js";
import { inWords, measured } from "./stats.js";
import { Session } from "./webrtc.js";
import { sentence } from "./words.js";

const PATIENCE_MS = 4000; // without a picture, before it is fetched through the hub
const GIVE_UP_MS = 20_000; // an attempt: a device may look for its addresses for longer than we wait to show something
const NO_WAY_MS = 1500; // for one to a device that has been reached before, unless it took long then
const DIRECT_AGAIN_MS = 15_000; // while it plays through the hub; then ever less often
const DIRECT_AGAIN_MAX_MS = 300_000;
const UNSEEN_MS = 30_000; // a page that nobody sees; then it watches no more
const MEASURE_MS = 1000;

/** {element, video}, which plays until the signal. `changed({state, figures})`: how it is, and what is measured. */
export function player(deviceId, name, changed, signal) {
  const video = h("video", { autoplay: true, playsinline: true, controls: true, "aria-label": `Live: ${name}` });
  video.muted = true; // not by the attribute, which does not count for what a script has made
  video.disableRemotePlayback = true; // or Safari gives no source
  const said = h("p", { class: "over", role: "status" });
  const element = h("div", { class: "player" }, video, said);
  const tell = (state, words, figures) => {
    element.dataset.state = state;
    setText(said, words);
    changed({ state, figures });
  };
  new Watch(deviceId, name, video, tell, signal);
  return { element, video };
}

class Watch {
  #deviceId;
  #name;
  #video;
  #tell;
  #signal;
  #frames;
  #shown = null; // the session whose picture is on screen
  #isDoomed = false; // that session is over; its picture may move on for a while
  #attempt = null; // the one that is to take its place: never two
  #tunnel = null; // {played, ends}: what comes through the hub
  #moves = false;
  #hasShown = false;
  #wasOnline = true;
  #failures = 0;
  #reachedMs = GIVE_UP_MS; // how long it took to reach the device
  #why = "";
  #before = null;
  #figures = {};
  #timers = new Map();

  constructor(deviceId, name, video, tell, signal) {
    this.#deviceId = deviceId;
    this.#name = name;
    this.#video = video;
    this.#tell = tell;
    this.#signal = signal;
    this.#frames = new Frames(video, (isFrozen) => this.#turned(isFrozen), signal);
    this.#listen();
    this.#hope();
  }

  #listen() {
    const signal = this.#signal;
    const measuring = setInterval(() => this.#measure(), MEASURE_MS);
    signal.addEventListener("abort", () => {
      clearInterval(measuring);
      this.#leave();
    });
    addEventListener("pagehide", () => this.#leave(), { signal });
    document.addEventListener("visibilitychange", () => this.#seen(), { signal });
    live.addEventListener("up", () => this.#hope(), { signal });
    fleet.addEventListener("change", () => this.#cameOrWent(), { signal });
  }

  #after(what, ms, run) {
    this.#forget(what);
    this.#timers.set(what, setTimeout(run, ms));
  }

  #forget(...what) {
    for (const each of what) {
      clearTimeout(this.#timers.get(each));
      this.#timers.delete(each);
    }
  }

  get #isOnline() {
    return (fleet.get(this.#deviceId)?.state ?? "online") === "online";
  }

  get #isSeen() {
    return !document.hidden || document.pictureInPictureElement === this.#video;
  }

  #say() {
    const trouble = this.#isOnline ? (this.#hasShown ? "reconnecting" : "connecting") : "device offline";
    const state = this.#moves ? "live" : trouble;
    const words = { __proto__: null, live: "", "device offline": "The device is offline. Trying again…" };
    const why = this.#why ? `${sentence(this.#why)} Trying again…` : sentence(`${state}…`);
    this.#tell(state, words[state] ?? why, this.#moves ? this.#figures : {});
  }

  /** Ask for a session. The picture of what is on screen stays meanwhile. */
  #ask() {
    this.#forget("retry");
    if (this.#attempt || this.#signal.aborted || !this.#isSeen || !this.#isOnline) return;
    const began = performance.now();
    const on = {
      connected: () => this.#reached(attempt, performance.now() - began),
      picture: () => this.#arrived(attempt),
      lost: (why) => this.#lost(attempt, why),
    };
    const screen = this.#shown || this.#tunnel ? Session.probe() : this.#video;
    const attempt = Session.isPossible ? new Session(this.#deviceId, this.#name, screen, on) : null;
    this.#attempt = attempt;
    if (attempt) this.#giveUpAfter(Math.min(GIVE_UP_MS, Math.max(NO_WAY_MS, 4 * this.#reachedMs)));
    else this.#fallBack();
  }

  #giveUpAfter(ms) {
    this.#after("give up", ms, () => this.#lost(this.#attempt, "No picture came from the device."));
  }

  /** Whoever answered and died since is asked anew soon; who only waits for a picture is left to wait. */
  #reached(session, tookMs) {
    if (session !== this.#attempt) return;
    this.#reachedMs = tookMs;
    this.#giveUpAfter(GIVE_UP_MS);
  }

  #arrived(session) {
    if (session !== this.#attempt) return;
    const before = this.#shown;
    this.#forget("give up", "patience");
    this.#tunnel?.ends.abort();
    this.#attempt = this.#tunnel = this.#before = null;
    this.#shown = session;
    this.#isDoomed = false;
    session.show(this.#video);
    before?.close();
    this.#frames.begin();
    this.#played();
  }

  #played() {
    this.#moves = this.#hasShown = true;
    this.#failures = 0;
    this.#why = "";
    this.#say();
  }

  /** A session is over: the one on screen, or the one that was to come. */
  #lost(session, why) {
    if (session && session === this.#shown) {
      this.#isDoomed = true;
      this.#ask();
      return;
    }
    if (session !== this.#attempt) return;
    this.#drop();
    if (!this.#moves) this.#why = why;
    if (!this.#hasShown) this.#fallBack();
    const pause = this.#tunnel && this.#moves
      ? Math.min(DIRECT_AGAIN_MAX_MS, DIRECT_AGAIN_MS * 2 ** this.#failures)
      : 1000 * retryDelay(this.#failures);
    this.#failures++;
    this.#after("retry", pause, () => this.#ask());
    this.#say();
  }

  #drop() {
    this.#forget("give up");
    this.#attempt?.close();
    this.#attempt = null;
  }

  /** What is on screen stands still, or moves again. */
  #turned(isFrozen) {
    if (isFrozen && !this.#moves) return;
    if (isFrozen) {
      this.#moves = false;
      this.#loseNoTime();
      this.#ask();
      this.#say();
      return;
    }
    this.#forget("patience");
    if (!this.#isDoomed && this.#shown) {
      this.#drop();
      this.#forget("retry");
    }
    this.#played();
  }

  #loseNoTime() {
    if (this.#timers.has("patience")) return;
    this.#after("patience", PATIENCE_MS, () => {
      this.#forget("patience");
      this.#fallBack();
    });
  }

  /** No picture comes straight from the device: have it through the hub, and go on asking. */
  #fallBack() {
    if (this.#moves || this.#tunnel || this.#signal.aborted || !this.#isSeen || !this.#isOnline) return;
    if (!canPlay) return;
    this.#attempt?.show(Session.probe());
    this.#shown?.close();
    this.#shown = this.#before = null;
    this.#isDoomed = false;
    const ends = new AbortController();
    const on = { picture: () => this.#played(), lost: (why) => this.#silent(why) };
    this.#frames.begin();
    const signal = AbortSignal.any([ends.signal, this.#signal]);
    this.#tunnel = { ends, played: new Tunnelled(this.#deviceId, this.#name, this.#video, on, signal) };
  }

  #silent(why) {
    this.#moves = false;
    this.#why = why;
    this.#say();
  }

  #cameOrWent() {
    if (this.#wasOnline === this.#isOnline) return;
    this.#wasOnline = this.#isOnline;
    this.#hope();
  }

  /** The hub or the device is back. */
  #hope() {
    if (!this.#moves) {
      this.#ask();
      this.#loseNoTime();
    }
    this.#say();
  }

  #seen() {
    if (this.#isSeen) {
      this.#forget("unseen");
      if (!this.#shown || this.#isDoomed) this.#ask();
      return;
    }
    this.#after("unseen", UNSEEN_MS, () => this.#rest());
  }

  #rest() {
    if (this.#isSeen) return;
    this.#drop();
    this.#shown?.close();
    this.#shown = null;
    this.#moves = false;
    this.#say();
  }

  #leave() {
    this.#forget(...this.#timers.keys());
    this.#drop();
    this.#shown?.close();
    this.#shown = null;
  }

  async #measure() {
    if (!this.#moves || document.hidden) return;
    const session = this.#shown;
    const now = session ? measured(await session.report()) : this.#tunnelled();
    if (session !== this.#shown) return;
    this.#figures = inWords(now, this.#before);
    this.#before = now;
    this.#say();
  }

  #tunnelled() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    return { at: performance.now(), bytes: this.#tunnel?.played.bytes ?? 0, width, height, path: "through the hub" };
  }
}
