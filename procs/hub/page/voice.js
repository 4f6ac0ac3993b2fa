/** The voice backend of the hub's machine: whether there is one, and how it was when it was asked last. */

import { call } from "./api.js";

/** Dispatches "change" after each answer. */
class Voice extends EventTarget {
  isThere = false; // down, it is there as well
  told = null; // what stays when it is down is old
  why = "Loading…"; // what is shown is not how it is now

  /** Ask the hub. */
  async look(signal) {
    try {
      this.told = await call("GET", "/api/voice", undefined, { signal });
      this.isThere = true;
      this.why = "";
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 404) this.told = null;
      if (error.status) this.isThere = error.status !== 404;
      this.why = error.message;
    }
    this.dispatchEvent(new Event("change"));
  }

  device(name) {
    return this.told?.devices.find((device) => device.name === name);
  }

  /** Whoever signs in next may see nothing of it. */
  forget() {
    this.isThere = false;
    this.told = null;
    this.why = "Loading…";
  }
}

export const voice = new Voice();

/** The path of a voice device's part of the REST. */
export function voiceCall(name, what) {
  return `/api/voice/${encodeURIComponent(name)}/${what}`;
}

/** Do it now, and again so long after it was done, while somebody looks, until the signal; never twice at a time.
 * Returns what does it at once, and ends when it is done. */
export function repeat(run, everyMs, signal) {
  let timer = 0;
  let running = null;
  const turn = () => {
    clearTimeout(timer);
    running ??= run().finally(() => {
      running = null;
      if (!signal.aborted && !document.hidden) timer = setTimeout(turn, everyMs);
    });
    return running;
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  document.addEventListener("visibilitychange", () => document.hidden || turn(), { signal });
  turn();
  return turn;
}
