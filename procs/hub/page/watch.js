/** Watches one stream: straight from the device where there is a way, through the hub where there is none. What breaks
 * is asked for again while the last picture stays; whichever moves first is shown. */

import { fleet } from "./fleet.js";
import { Frames } from "./frames.js";
import { live, retryDelay } from "./live.js";
import { Tunnelled, canPlay } from "./mse.js";
import { measured } from "./stats.js";
import { Timers } from "./timers.js";
import { Session } from "./webrtc.js";

const PATIENCE_MS = 4000; // without a picture, before it is fetched through the hub
const TALKING_MS = 10_000; // the same while the viewer talks, and before another session is asked for: a camera that
// takes sound may be connected to anew for it, and its picture stands still. It would for each new session that talks.
const GIVE_UP_MS = 20_000; // an attempt: a device may look for its addresses for longer than we wait to show something
const NO_WAY_MS = 1500; // for one to a device that has been reached before, unless it took long then
const DIRECT_AGAIN_MS = 15_000; // while it plays through the hub; then ever less often
const DIRECT_AGAIN_MAX_MS = 300_000;
const NEEDLESS_FREE = 2; // attempts that were not needed, as the picture moved on by itself, before we ask less soon:
const NEEDLESS_MS = 500; // on a narrow way a second stream is what it needs least
const NEEDLESS_MAX_MS = 4000;
const FORGIVEN_MS = 30_000;
const HEARS_MS = 5000;
const UNSEEN_MS = 30_000; // a page that nobody sees; then it watches no more

const HUB_PATH = "through the hub";
const unreached = new Set(); // devices that gave no picture in time: the next need not wait for that

/** Shows a stream in `video` until the signal, and `tell(state, why)`s how it is: "connecting", "live", "reconnecting" or
 * "device offline". */
export class Watch {
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
  #needless = 0;
  #reachedMs = GIVE_UP_MS; // how long it took to reach the device
  #why = "";
  #askedTwice = false;
  #said = null; // the track of a microphone, while the viewer talks
  #timers = new Timers();

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
    signal.addEventListener("abort", () => this.#leave());
    addEventListener("pagehide", () => this.#leave(), { signal });
    document.addEventListener("visibilitychange", () => this.#seen(), { signal });
    live.addEventListener("up", () => this.#hope(), { signal });
    fleet.addEventListener("change", () => this.#cameOrWent(), { signal });
  }

  get #isOnline() {
    return (fleet.get(this.#deviceId)?.state ?? "online") === "online";
  }

  get #isSeen() {
    return !document.hidden || document.pictureInPictureElement === this.#video;
  }

  #say() {
    const trouble = this.#isOnline ? (this.#hasShown ? "reconnecting" : "connecting") : "device offline";
    this.#tell(this.#moves ? "live" : trouble, this.#why);
  }

  /** Ask for a session. The picture of what is on screen stays meanwhile. */
  #ask() {
    this.#timers.forget("retry");
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
    const noWayMs = Math.max(NO_WAY_MS, 4 * this.#reachedMs) * 2 ** this.#failures;
    if (attempt) this.#giveUpAfter(Math.min(GIVE_UP_MS, noWayMs));
    else this.#fallBack();
  }

  #giveUpAfter(ms) {
    this.#timers.after("give up", ms, () => this.#lost(this.#attempt, "No picture came from the device."));
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
    this.#timers.forget("give up", "patience");
    this.#tunnel?.ends.abort();
    this.#attempt = this.#tunnel = null;
    this.#shown = session;
    this.#isDoomed = false;
    unreached.delete(this.#deviceId);
    session.show(this.#video);
    session.speak(this.#said);
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
    this.#timers.after("retry", pause, () => this.#ask());
    this.#say();
  }

  #drop() {
    this.#timers.forget("give up");
    this.#attempt?.close();
    this.#attempt = null;
  }

  /** What is on screen stands still, or moves again. */
  #turned(isFrozen) {
    if (isFrozen && !this.#moves) return;
    if (isFrozen) {
      this.#moves = false;
      this.#loseNoTime();
      this.#askForAnother();
      this.#say();
      return;
    }
    this.#timers.forget("patience");
    if (!this.#isDoomed && this.#shown) this.#stay();
    this.#played();
  }

  #askForAnother() {
    const over = this.#needless - NEEDLESS_FREE;
    if (this.#said && !this.#isDoomed) this.#timers.after("retry", TALKING_MS, () => this.#ask());
    else if (over <= 0) this.#ask();
    else this.#timers.after("retry", Math.min(NEEDLESS_MAX_MS, NEEDLESS_MS * 2 ** (over - 1)), () => this.#ask());
  }

  /** The picture moves on by itself. */
  #stay() {
    if (this.#attempt) {
      this.#needless++;
      this.#timers.after("forgiven", FORGIVEN_MS, () => (this.#needless = 0));
    }
    this.#drop();
    this.#timers.forget("retry");
  }

  #loseNoTime() {
    if (this.#timers.has("patience")) return;
    const isVain = !this.#hasShown && unreached.has(this.#deviceId);
    const patienceMs = this.#said && this.#shown && !this.#isDoomed ? TALKING_MS : PATIENCE_MS;
    this.#timers.after("patience", isVain ? 0 : patienceMs, () => this.#fallBack());
  }

  /** No picture comes straight from the device: have it through the hub, and go on asking. */
  #fallBack() {
    if (this.#moves || this.#tunnel || this.#signal.aborted || !this.#isSeen || !this.#isOnline) return;
    if (!canPlay) return;
    if (!this.#hasShown) unreached.add(this.#deviceId);
    this.#attempt?.show(Session.probe());
    this.#shown?.close();
    this.#shown = null;
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
      this.#timers.forget("unseen");
      if (!this.#shown || this.#isDoomed) this.#ask();
      this.#hope();
      return;
    }
    this.#timers.after("unseen", UNSEEN_MS, () => this.#rest());
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
    this.#timers.forgetAll();
    this.#drop();
    this.#shown?.close();
    this.#shown = null;
  }

  /** Whether to offer to talk: where there is a direct way, and the device has not said twice that nothing is heard. */
  get mayHear() {
    return Boolean(this.#shown) && (this.#shown.hears || !this.#askedTwice);
  }

  /** Why what the viewer says is not heard, by the way that the picture takes now; "" if it is. A camera that had still
   * to start when the device answered may have a loudspeaker after all: the device is asked once more. */
  async deafness() {
    if (this.#shown?.hears === false && !this.#askedTwice) {
      this.#askedTwice = true;
      this.#ask();
      const until = performance.now() + HEARS_MS;
      while (this.#attempt && performance.now() < until) await new Promise((done) => setTimeout(done, HEARS_MS / 50));
    }
    if (!this.#shown) return "There is no direct way to this camera now, and through the hub goes no sound to it.";
    return this.#shown.hears ? "" : "This camera takes no sound.";
  }

  /** Have this track of a microphone heard at the device, also by what takes the place of the session; null to end. */
  speak(track) {
    this.#said = track;
    this.#shown?.speak(track);
  }

  /** What has come so far, and of which source: what is counted of one can't be compared with another. */
  async measure() {
    const source = this.#shown ?? this.#tunnel;
    if (this.#shown) return { source, ...measured(await this.#shown.report()) };
    const { videoWidth: width, videoHeight: height } = this.#video;
    return { source, at: performance.now(), bytes: this.#tunnel?.played.bytes ?? 0, width, height, path: HUB_PATH };
  }
}
