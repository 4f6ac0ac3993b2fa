/** One stream of a device: its thumbnail, or a player in its place. */

import { deviceCall, download } from "./api.js";
import { action } from "./controls.js";
import { follow, h, named } from "./dom.js";
import { icon } from "./icons.js";
import { asKnown } from "./live.js";
import { player } from "./player.js";
import { streamState } from "./words.js";

const SNAPSHOT_MS = 30_000; // an idle camera has to start first

export function streamTile(deviceId, stream, isOnline, thumbnails, signal) {
  const image = h("img", { alt: "" });
  const state = h("span", { class: "muted" });
  const still = h("div", { class: "thumb" }, icon("devices"), image);
  const screen = h("div", {}, still);
  const play = h("button", { type: "button" });
  const snapshot = action({
    label: "Snapshot",
    name: `Snapshot of ${stream.name}`,
    run: () => saveSnapshot(deviceId, stream.name),
  });
  let current = stream;
  let playing = null; // what ends the player
  const sayState = () => follow(state, () => (playing ? "playing" : asKnown(streamState(current))));
  const draw = () => {
    const label = playing ? "Stop" : "Play";
    play.replaceChildren(icon(label.toLowerCase()), label);
    play.setAttribute("aria-label", `${label} ${stream.name}`);
    screen.replaceChildren(playing ? playing.element : still);
    sayState();
    thumbnails.set(still, image, deviceId, isOnline() && !playing ? current : null);
  };
  play.addEventListener("click", () => {
    if (playing) playing.ends.abort();
    const ends = new AbortController();
    playing = playing ? null : { ends, element: player(deviceId, stream.name, AbortSignal.any([signal, ends.signal])) };
    draw();
  });
  const update = (changed) => {
    current = changed;
    element.dataset.running = changed.is_running;
    sayState();
    play.hidden = snapshot.hidden = !isOnline() && !playing;
    if (!playing) thumbnails.set(still, image, deviceId, isOnline() ? changed : null);
  };
  const title = h("div", {}, named("h2", stream.name), state);
  const under = h("div", { class: "under" }, title, h("div", { class: "row" }, play, snapshot));
  const element = h("li", { class: "tile panel" }, screen, under);
  draw();
  update(stream);
  return { element, update };
}

async function saveSnapshot(deviceId, name) {
  const path = `${deviceCall(deviceId, "proxy")}/api/frame.jpeg?src=${encodeURIComponent(name)}`;
  const { blob } = await download(path, { deadlineMs: SNAPSHOT_MS });
  const url = URL.createObjectURL(blob);
  const when = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
  h("a", { href: url, download: `${name} ${when}.jpg` }).click();
  URL.revokeObjectURL(url);
}
