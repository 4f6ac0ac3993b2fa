/** One stream of a device: its thumbnail, or a player in its place. */

import { deviceCall, download } from "./api.js";
import { action } from "./controls.js";
import { follow, h, named, setText } from "./dom.js";
import { fleet } from "./fleet.js";
import { icon } from "./icons.js";
import { asKnown } from "./live.js";
import { player } from "./player.js";
import { talkButton } from "./talk.js";
import { streamState } from "./words.js";

const SNAPSHOT_MS = 30_000; // an idle camera has to start first
const JPEG_QUALITY = 0.92;

export function streamTile(deviceId, stream, isOnline, thumbnails, signal) {
  const image = h("img", { alt: "" });
  const state = h("span", { class: "muted" });
  const still = h("div", { class: "thumb" }, icon("devices"), image);
  const screen = h("div", {}, still);
  const figures = h("dl", { class: "figures", hidden: true });
  const play = h("button", { type: "button" });
  const larger = h("span", { class: "row" });
  const run = () => (playing?.video.videoWidth ? savePicture(playing.video, stream.name) : saveFrame(deviceId, stream.name));
  const snapshot = action({ label: "Snapshot", name: `Snapshot of ${stream.name}`, run });
  let current = stream;
  let playing = null; // {element, video, ends, state}
  const sayState = () => follow(state, () => playing?.state ?? asKnown(streamState(current)));
  const tell = (told) => {
    if (!playing) return;
    playing.state = told.state;
    playing.talk?.offer();
    state.dataset.watch = told.state;
    sayState();
    figures.classList.toggle("stale", told.state !== "live");
    if (told.figures) describe(figures, told.figures);
  };
  const draw = () => {
    const label = playing ? "Stop" : "Play";
    play.replaceChildren(icon(label.toLowerCase()), label);
    play.setAttribute("aria-label", `${label} ${stream.name}`);
    screen.replaceChildren(playing ? playing.element : still);
    larger.replaceChildren(...(playing ? [...(playing.talk ? [playing.talk.element] : []), ...enlarging(playing, stream.name)] : []));
    if (!playing) describe(figures, {});
    sayState();
    thumbnails.set(still, image, deviceId, isOnline() && !playing ? current : null);
  };
  const begin = () => {
    const ends = new AbortController();
    playing = { ends, state: "connecting" };
    const until = AbortSignal.any([signal, ends.signal]);
    Object.assign(playing, player(deviceId, stream.name, tell, until));
    const mayTalk = fleet.get(deviceId)?.role === "owner"; // it is more than looking
    playing.talk = mayTalk ? talkButton(stream.name, playing.watch, until) : null;
    playing.talk?.offer();
  };
  play.addEventListener("click", () => {
    playing?.ends.abort();
    if (playing) playing = null;
    else begin();
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
  const under = h("div", { class: "under" }, title, h("div", { class: "row" }, play, larger, snapshot));
  const element = h("li", { class: "tile panel" }, screen, under, figures);
  draw();
  update(stream);
  return { element, update };
}

/** What else a browser can do with a picture; none can do all. */
function enlarging({ element, video }, name) {
  const float = async () => {
    if (document.pictureInPictureElement === video) await document.exitPictureInPicture();
    else await video.requestPictureInPicture();
  };
  const fill = async () => {
    if (document.fullscreenElement) await document.exitFullscreen();
    else if (element.requestFullscreen) await element.requestFullscreen();
    else video.webkitEnterFullscreen(); // an iPhone
  };
  const canFill = document.fullscreenEnabled || video.webkitSupportsFullscreen;
  return [
    document.pictureInPictureEnabled && symbol("floating", `Picture in picture: ${name}`, float),
    canFill && symbol("full", `Full screen: ${name}`, fill),
  ].filter(Boolean);
}

function symbol(drawing, name, run) {
  const onclick = () => run().catch(() => {}); // there is no picture yet, or the person has said no
  return h("button", { type: "button", "aria-label": name, title: name, onclick }, icon(drawing));
}

function describe(figures, told) {
  const terms = Object.keys(told);
  figures.hidden = !terms.length;
  const drawn = [...figures.querySelectorAll("dt")].map((term) => term.textContent);
  if (drawn.join() !== terms.join()) {
    figures.replaceChildren(...terms.map((term) => h("div", {}, h("dt", {}, term), h("dd", {}))));
  }
  for (const [at, value] of [...figures.querySelectorAll("dd")].entries()) setText(value, told[terms[at]]);
}

/** What is on screen, as it is there. */
async function savePicture(video, name) {
  const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
  save(blob, name);
}

async function saveFrame(deviceId, name) {
  const path = `${deviceCall(deviceId, "proxy")}/api/frame.jpeg?src=${encodeURIComponent(name)}`;
  const { blob } = await download(path, { deadlineMs: SNAPSHOT_MS });
  save(blob, name);
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const when = new Date().toISOString().slice(0, 19).replaceAll(":", "-");
  h("a", { href: url, download: `${name} ${when}.jpg` }).click();
  URL.revokeObjectURL(url);
}
