/** One device: its streams, what it has been through, its processes, and whose it is. */

import { call, deviceCall } from "./api.js";
import { action, form } from "./controls.js";
import { KeyedList, entitle, follow, h, named, setText } from "./dom.js";
import { eventList } from "./events.js";
import { fleet, stateNow } from "./fleet.js";
import { icon } from "./icons.js";
import { session } from "./session.js";
import { sharing } from "./shares.js";
import { streamTile } from "./stream.js";
import { processTable } from "./processes.js";
import { Thumbnails } from "./thumbs.js";
import { capability } from "./words.js";

const OPEN_MS = 4000; // a browser opens a tab only soon after somebody has pressed something

export function deviceView(signal, deviceId) {
  const head = heading(deviceId);
  const body = h("div", {});
  let drawn = null; // what stands below the heading, which follows by itself
  let update = () => {};
  let ends = new AbortController(); // of what is drawn: a device that is gone is not played on
  const draw = () => {
    const device = fleet.get(deviceId);
    const wanted = device ? `as ${device.role}` : fleet.isKnown ? "gone" : "loading";
    if (wanted !== drawn) {
      drawn = wanted;
      ends.abort();
      ends = new AbortController();
      const parts = device ? whole(device, AbortSignal.any([signal, ends.signal])) : absent(wanted);
      body.replaceChildren(parts.element);
      update = parts.update;
    }
    head.update(device, wanted);
    update(device);
  };
  fleet.addEventListener("change", draw, { signal });
  draw();
  return { title: fleet.get(deviceId)?.device_name ?? deviceId, content: [head.element, body] };
}

function absent(why) {
  const text = why === "loading" ? "Loading…" : "It was removed, or it is not shared with you any more.";
  return { element: h("p", { class: "empty" }, text), update() {} };
}

function whole(device, signal) {
  const isOwner = device.role === "owner";
  const tiles = streamTiles(device, signal);
  const facts = h("dl", { class: "facts" });
  const table = h("div", {});
  const aside = h("aside", {}, section("Events", eventList(device.device_id, signal)));
  if (isOwner) aside.append(section("Shared with", sharing(device.device_id, signal)));
  aside.append(section("About", facts, isOwner ? renaming(device) : [], leaving(device)));
  let hasSuite = null;
  const update = (changed) => {
    tiles.update(changed);
    describe(facts, changed);
    if (changed.has_suite === hasSuite) return;
    hasSuite = changed.has_suite;
    table.replaceChildren(hasSuite ? processTable(changed.device_id, isOwner, signal) : noSuite());
  };
  const left = h("div", { class: "left" }, tiles.element, section("Suite", table));
  return { element: h("div", { class: "columns" }, left, aside), update };
}

function noSuite() {
  const text = "This device tells nothing of its processes. One that runs Planaria’s whole suite does.";
  return h("p", { class: "empty" }, text);
}

function section(title, ...content) {
  return h("section", { class: "panel" }, h("h2", {}, title), content);
}

function heading(deviceId) {
  let current = null;
  const name = h("h1", { dir: "auto" }, "Device");
  const state = h("p", { class: "state" });
  const open = session().views
    ? action({ label: "Open go2rtc", run: () => openPages(deviceId) })
    : h("p", { class: "hint" }, "To open its own pages here, set PLANARIA_HUB_VIEWS on the hub.");
  const back = h("a", { href: "#/", class: "back" }, icon("back"), "Devices");
  const element = h("div", { class: "head" }, h("div", {}, back, name, state), open);
  const update = (device, why) => {
    current = device;
    element.dataset.state = device?.state ?? why;
    open.hidden = device?.state !== "online";
    state.hidden = !device;
    if (why === "gone") setText(name, "No such device");
    if (!device) return;
    setText(name, device.device_name);
    entitle(device.device_name);
    follow(state, () => (current ? stateNow(current) : ""));
  };
  return { element, update };
}

/** The device's pages are of another origin, and learn nothing of this one. */
async function openPages(deviceId) {
  const { url } = await call("POST", deviceCall(deviceId, "open"), {}, { deadlineMs: OPEN_MS });
  window.open(url, "_blank", "noopener,noreferrer");
}

function streamTiles(device, signal) {
  const grid = h("ul", { class: "tiles" });
  const none = h("p", { class: "empty" });
  const thumbnails = new Thumbnails(signal);
  let isOnline = device.state === "online";
  // A device that is away, or is just back, tells of none: what plays goes on by itself.
  let known = device.streams;
  const make = (stream) => streamTile(device.device_id, stream, () => isOnline, thumbnails, signal);
  const tiles = new KeyedList(grid, (stream) => stream.name, make);
  const update = (changed) => {
    const hasTurned = isOnline !== (changed.state === "online");
    isOnline = changed.state === "online";
    if (changed.streams.length) known = changed.streams;
    tiles.show(hasTurned ? known.map((stream) => ({ ...stream })) : known);
    none.hidden = known.length > 0;
    setText(none, isOnline ? "Its go2rtc has no streams, or does not answer." : "Its streams are known once it is online.");
  };
  return { element: h("section", { "aria-label": "Streams" }, grid, none), update };
}

function describe(facts, device) {
  const rows = {
    Id: device.device_id,
    Type: device.device_type,
    Owner: device.owner,
    "You are": device.role,
    Version: device.agent_version,
    Capabilities: device.caps.map(capability).join(", "),
  };
  const told = Object.entries(rows).filter(([, value]) => value);
  facts.replaceChildren(...told.flatMap(([term, value]) => [h("dt", {}, term), named("dd", value)]));
}

function renaming(device) {
  const fields = [{ name: "device_name", label: "Another name", longest: 128 }];
  const send = async ({ device_name }) => {
    await call("PATCH", deviceCall(device.device_id), { device_name });
    return "Renamed.";
  };
  return form({ id: `rename-${device.device_id}`, fields, submit: "Rename", send, isQuiet: true });
}

/** To let go of it: whoever owns it removes it, whom it is shared with leaves it. */
function leaving(device) {
  const { username } = session().user;
  const isMine = device.owner === username;
  const path = isMine ? deviceCall(device.device_id) : deviceCall(device.device_id, "shares", username);
  const run = async () => {
    await call("DELETE", path);
    location.hash = "#/";
  };
  const label = isMine ? "Remove this device" : "Leave this device";
  const confirm = isMine ? "Remove device?" : "Leave device?";
  return action({ label, confirm, run, kind: "danger" });
}
