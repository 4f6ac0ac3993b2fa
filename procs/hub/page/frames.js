/** Notices that a picture which moved does so no more. */

const LOOK_MS = 50;
const FROZEN_MS = 350; // and one look more, and the way: the device hears of it within half a second
const UNKNOWN_MS = 1500; // while it is not known how often pictures come
const SLOW = 3; // a stream of one picture a second does not freeze each second
const LONGEST_MS = 5000;

/** How soon the next picture is due. Pure: milliseconds of any clock go in. */
export class Pace {
  #at = 0;
  #usual = 0;

  /** A picture came. */
  came(now) {
    const since = this.#at ? now - this.#at : 0;
    if (since && since < LONGEST_MS) this.#usual = this.#usual ? this.#usual + (since - this.#usual) / 8 : since;
    this.#at = now;
  }

  /** None is late yet. */
  forgive(now) {
    this.#at = now;
  }

  isFrozen(now) {
    const due = this.#usual ? Math.max(FROZEN_MS, SLOW * this.#usual) : UNKNOWN_MS;
    const patience = Math.min(LONGEST_MS, due);
    return this.#at > 0 && now - this.#at > patience;
  }
}

/** Whether a video moves, until the signal: `changed(isFrozen)`. What is paused, or in a page that nobody sees, may
 * stand still. */
export class Frames {
  #pace = new Pace();
  #video;
  #changed;
  #isFrozen = false;
  #counted = 0;
  #toldAt = 0;

  constructor(video, changed, signal) {
    this.#video = video;
    this.#changed = changed;
    this.#follow(signal);
    const looking = setInterval(() => this.#look(), LOOK_MS);
    signal.addEventListener("abort", () => clearInterval(looking));
  }

  /** Another source is shown. */
  begin() {
    this.#pace = new Pace();
    this.#pace.came(performance.now());
    this.#isFrozen = false;
  }

  #follow(signal) {
    const came = (now) => {
      if (signal.aborted) return;
      this.#toldAt = now;
      this.#came(now);
      this.#video.requestVideoFrameCallback(came);
    };
    this.#video.requestVideoFrameCallback?.(came);
  }

  #came(now) {
    this.#pace.came(now);
    if (!this.#isFrozen) return;
    this.#isFrozen = false;
    this.#changed(false);
  }

  /** Frames of a video that is scrolled away are counted, but not told. */
  #look() {
    const now = performance.now();
    const { totalVideoFrames } = this.#video.getVideoPlaybackQuality();
    const hasMoved = totalVideoFrames !== this.#counted;
    this.#counted = totalVideoFrames;
    const isSeen = !document.hidden || document.pictureInPictureElement === this.#video;
    if (!isSeen || this.#video.paused) this.#pace.forgive(now);
    else if (hasMoved && now - this.#toldAt > FROZEN_MS) this.#came(now);
    else if (!hasMoved && !this.#isFrozen && this.#pace.isFrozen(now)) {
      this.#isFrozen = true;
      this.#changed(true);
    }
  }
}
