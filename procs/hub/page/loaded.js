/** A part of a view that is fetched by REST, and fetched again when the hub is back. */

import { h } from "./dom.js";
import { live } from "./live.js";

/** `load()` is asked at once, at each return of the hub, and by the function that this returns; `show(answer)` draws.
 * Until then, and where it fails, `place` says so. What was drawn stays when a later load fails: old is better than
 * nothing. */
export function loaded(place, load, show, signal) {
  let isDrawn = false;
  const again = async () => {
    try {
      const answer = await load();
      if (signal.aborted) return;
      isDrawn = true;
      show(answer);
    } catch (error) {
      if (error.name === "AbortError" || isDrawn) return;
      const button = h("button", { type: "button", onclick: again }, "Try again");
      place.replaceChildren(h("p", { class: "empty error", role: "alert" }, error.message, " ", button));
    }
  };
  place.replaceChildren(h("p", { class: "empty" }, "Loading…"));
  live.addEventListener("up", again, { signal });
  again();
  return again;
}
