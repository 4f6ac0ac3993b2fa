/** Live thumbnails that cost the hub little: only of what is on screen, one request at a time, below one a second. */

import { deviceCall, download } from "./api.js";
import { live } from "./live.js";

const RUNNING_EVERY_S = 2;
const IDLE_EVERY_S = 30; // each picture of an idle stream starts its camera
const BURST = 8; // a screen that was just opened is filled at once
const PER_S = 0.8;
const FAILED_MIN_S = 5;
const FAILED_MAX_S = 300;
const MAX_PICTURES = 300;

/** Which picture is to be fetched next, and when. Pure: seconds of any clock go in. */
export class Schedule {
  #entries = new Map();
  #isBusy = false;
  #tokens = BURST;
  #filledAt = -Infinity;

  /** This picture is on screen. What is known of it from before counts: to scroll there and back asks for nothing. */
  see(key, isRunning) {
    const entry = this.#entries.get(key) ?? { askedAt: -Infinity, notBefore: -Infinity, failures: 0 };
    this.#entries.set(key, { ...entry, isRunning, isSeen: true });
  }

  /** It is on screen no more. */
  unsee(key) {
    const entry = this.#entries.get(key);
    if (entry) entry.isSeen = false;
  }

  /** {key} to fetch now, or {waitS} until there may be one; Infinity: when something changes. */
  next(now) {
    if (this.#isBusy) return { waitS: Infinity };
    const seen = [...this.#entries].filter(([, entry]) => entry.isSeen);
    if (!seen.length) return { waitS: Infinity };
    const [key, entry] = seen.reduce((best, each) => (isBefore(each[1], best[1], now) ? each : best));
    const waitS = Math.max(dueAt(entry) - now, this.#tokenIn(now));
    return waitS > 0 ? { waitS } : { key };
  }

  /** It is being fetched. */
  started(key, now) {
    this.#tokenIn(now);
    this.#tokens -= 1;
    this.#isBusy = true;
    this.#entries.get(key).askedAt = now;
  }

  /** It has come, or has not; the hub may have said when to come again. */
  ended(key, now, { isGood, retryS = 0 }) {
    this.#isBusy = false;
    const entry = this.#entries.get(key);
    entry.failures = isGood ? 0 : entry.failures + 1;
    const pauseS = isGood ? 0 : Math.min(FAILED_MAX_S, FAILED_MIN_S * 2 ** (entry.failures - 1));
    entry.notBefore = now + Math.max(pauseS, retryS);
  }

  /** What failed may work again now: the hub or a device is back. */
  forgive() {
    for (const entry of this.#entries.values()) entry.notBefore = -Infinity;
  }

  #tokenIn(now) {
    this.#tokens = Math.min(BURST, this.#tokens + (now - this.#filledAt) * PER_S);
    this.#filledAt = now;
    return (1 - this.#tokens) / PER_S;
  }
}

function everyS(entry) {
  return entry.isRunning ? RUNNING_EVERY_S : IDLE_EVERY_S;
}

function dueAt(entry) {
  return Math.max(entry.askedAt + everyS(entry), entry.notBefore);
}

/** What is due comes before what is not; then the first picture of all, of what runs already; then whoever is overdue
 * by most of its own pace, so that streams that run do not keep idle ones away for ever. */
function isBefore(one, other, now) {
  const isDue = dueAt(one) <= now;
  if (isDue !== dueAt(other) <= now) return isDue;
  if (!isDue) return dueAt(one) < dueAt(other);
  const isFirst = one.askedAt === -Infinity;
  if (isFirst !== (other.askedAt === -Infinity)) return isFirst;
  if (isFirst) return one.isRunning && !other.isRunning;
  return (now - one.askedAt) / everyS(one) > (now - other.askedAt) / everyS(other);
}

/** Addresses of the pictures that came last, by key: what was seen once is there at once. */
const pictures = new Map();

function keep(key, blob) {
  const before = pictures.get(key);
  if (before) URL.revokeObjectURL(before.url);
  pictures.delete(key);
  pictures.set(key, { url: URL.createObjectURL(blob) });
  if (pictures.size <= MAX_PICTURES) return;
  const [oldest, { url }] = pictures.entries().next().value;
  URL.revokeObjectURL(url);
  pictures.delete(oldest);
}

/** Whoever signs in next may not see them. */
export function forgetPictures() {
  for (const { url } of pictures.values()) URL.revokeObjectURL(url);
  pictures.clear();
}

/** The thumbnails of one view, until the signal. */
export class Thumbnails {
  #schedule = new Schedule();
  #signal;
  #timer = 0;
  #shown = new Map(); // figure -> {key, path, image, isRunning, isVisible}
  #observer = new IntersectionObserver((changes) => this.#scrolled(changes), { rootMargin: "50px" });

  constructor(signal) {
    this.#signal = signal;
    document.addEventListener("visibilitychange", () => this.#turn(), { signal });
    live.addEventListener("up", () => this.#forgive(), { signal });
    signal.addEventListener("abort", () => {
      clearTimeout(this.#timer);
      this.#observer.disconnect();
    });
  }

  /** Have this <img> within a figure show the stream; null: it keeps what it shows, of a device that is away. */
  set(figure, image, deviceId, stream) {
    const before = this.#shown.get(figure);
    if (!stream) {
      this.#stop(figure, before);
      return;
    }
    const path = deviceCall(deviceId, "streams", stream.name, "thumbnail");
    if (before?.path === path && before.isRunning === stream.is_running) return;
    if (before) this.#schedule.unsee(before.path);
    else this.#observer.observe(figure);
    const shown = { path, image, isRunning: stream.is_running, isVisible: before?.isVisible ?? false };
    this.#shown.set(figure, shown);
    if (before?.path !== path) draw(image, path);
    this.#see(shown);
    this.#turn();
  }

  #stop(figure, before) {
    if (!before) return;
    this.#observer.unobserve(figure);
    this.#schedule.unsee(before.path);
    this.#shown.delete(figure);
  }

  #scrolled(changes) {
    for (const { target, isIntersecting } of changes) {
      const shown = this.#shown.get(target);
      if (!shown) continue;
      shown.isVisible = isIntersecting;
      this.#see(shown);
    }
    this.#turn();
  }

  #see({ path, isRunning, isVisible }) {
    if (isVisible) this.#schedule.see(path, isRunning);
    else this.#schedule.unsee(path);
  }

  #forgive() {
    this.#schedule.forgive();
    this.#turn();
  }

  /** Fetch what is due, or wait until something is. */
  #turn() {
    clearTimeout(this.#timer);
    if (document.hidden || !live.isUp || this.#signal.aborted) return;
    const now = performance.now() / 1000;
    const { key, waitS } = this.#schedule.next(now);
    if (key) this.#fetch(key, now);
    else if (waitS < Infinity) this.#timer = setTimeout(() => this.#turn(), 1000 * waitS);
  }

  async #fetch(path, now) {
    this.#schedule.started(path, now);
    const outcome = await fetched(path, this.#signal);
    this.#schedule.ended(path, performance.now() / 1000, outcome);
    for (const shown of this.#shown.values()) if (shown.path === path && outcome.isGood) draw(shown.image, path);
    this.#turn();
  }
}

async function fetched(path, signal) {
  try {
    const { blob } = await download(path, { signal });
    keep(path, blob);
    return { isGood: true };
  } catch (error) {
    return { isGood: false, retryS: error.retryS };
  }
}

function draw(image, path) {
  const picture = pictures.get(path);
  if (picture) image.src = picture.url;
  else image.removeAttribute("src");
}
