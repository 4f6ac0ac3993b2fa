/** A stream on screen: its picture, how it is in words, and what is measured of it. */

import { h, setText } from "./dom.js";
import { inWords } from "./stats.js";
import { Watch } from "./watch.js";
import { sentence } from "./words.js";

const MEASURE_MS = 1000;

/** {element, video, watch}, which plays until the signal. `changed({state, figures?})`: how it is; what is measured, once that is. */
export function player(deviceId, name, changed, signal) {
  const video = h("video", { autoplay: true, playsinline: true, controls: true, "aria-label": `Live: ${name}` });
  video.muted = true; // not by the attribute, which does not count for what a script has made
  video.disableRemotePlayback = true; // or Safari gives no source
  const said = h("p", { class: "over", role: "status" });
  const element = h("div", { class: "player" }, video, said);
  let state = "connecting";
  const tell = (now, why) => {
    state = now;
    element.dataset.state = state;
    setText(said, words(state, why));
    changed({ state });
  };
  const watch = new Watch(deviceId, name, video, tell, signal);
  let before = {};
  const measure = async () => {
    if (state !== "live" || document.hidden) return;
    const now = await watch.measure();
    const figures = inWords(now, now.source === before.source ? before : null);
    before = now;
    if (state === "live") changed({ state, figures });
  };
  const measuring = setInterval(measure, MEASURE_MS);
  signal.addEventListener("abort", () => clearInterval(measuring));
  return { element, video, watch };
}

/** Over the picture; nothing while it moves. */
function words(state, why) {
  if (state === "live") return "";
  if (state === "device offline") return "The device is offline. Trying again…";
  return why ? `${sentence(why)} Trying again…` : sentence(`${state}…`);
}
