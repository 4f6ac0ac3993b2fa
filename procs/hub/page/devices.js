/** All devices, as a grid of cards with live thumbnails. */

import { keepDraft } from "./controls.js";
import { KeyedList, follow, h, setText } from "./dom.js";
import { fleet, inOrder, isMeant, mainStream, stateNow } from "./fleet.js";
import { icon } from "./icons.js";
import { asKnown } from "./live.js";
import { session } from "./session.js";
import { Thumbnails } from "./thumbs.js";
import { count, streams } from "./words.js";

const FEW = 3; // devices that have the room for large pictures, on a phone too

export function devicesView(signal) {
  const search = h("input", { id: "search", type: "search", placeholder: "Name, id or stream", autocomplete: "off" });
  keepDraft(search, "search");
  const found = h("p", { class: "muted", role: "status" });
  const grid = h("ul", { class: "grid" });
  const none = h("div", {});
  const thumbnails = new Thumbnails(signal);
  const cards = new KeyedList(grid, (device) => device.device_id, (device) => card(device, thumbnails));
  const draw = () => {
    const all = fleet.all();
    const shown = all.filter((device) => isMeant(device, search.value)).sort(inOrder);
    cards.show(shown);
    grid.classList.toggle("few", shown.length <= FEW);
    follow(found, () => asKnown(summary(all, shown, search.value)));
    none.replaceChildren(...nothing(all, shown));
    bar.hidden = fleet.isKnown && !all.length;
  };
  const label = h("label", { for: "search", class: "unseen" }, "Search devices");
  const bar = h("div", { class: "bar", role: "search" }, label, search, found);
  search.addEventListener("input", draw);
  fleet.addEventListener("change", draw, { signal });
  draw();
  return { title: "Devices", content: [h("h1", {}, "Devices"), bar, grid, none] };
}

function summary(all, shown, query) {
  if (!all.length) return "";
  if (query.trim()) return `${shown.length} of ${count(all.length, "device")}`;
  return `${count(all.length, "device")}, ${all.filter((device) => device.state === "online").length} online`;
}

/** What stands where no card does. */
function nothing(all, shown) {
  if (shown.length) return [];
  if (!fleet.isKnown) return [h("p", { class: "empty" }, "Loading…")];
  if (all.length) return [h("p", { class: "empty" }, "No device has that in its name, its id or its streams.")];
  return [
    h(
      "div",
      { class: "empty panel" },
      h("h2", {}, "No devices yet"),
      h("p", {}, "Pair one, and its streams are here, wherever it is."),
      h("p", {}, h("a", { class: "button main", href: "#/pair" }, "Pair a device")),
    ),
  ];
}

/** One device; made once, and changed where it has changed. */
function card(device, thumbnails) {
  let current = device;
  const name = h("a", { dir: "auto" });
  const state = h("span", { class: "state" });
  const facts = h("p", { class: "facts" });
  const image = h("img", { alt: "" });
  const figure = h("div", { class: "thumb" }, icon("devices"), image);
  const element = h("li", { class: "card" }, figure, h("div", { class: "about" }, h("h2", {}, name), state, facts));
  const update = (changed) => {
    current = changed;
    element.dataset.state = changed.state;
    name.href = `#/devices/${encodeURIComponent(changed.device_id)}`;
    setText(name, changed.device_name);
    follow(state, () => stateNow(current));
    setText(facts, cardFacts(changed));
    thumbnails.set(figure, image, changed.device_id, changed.state === "online" ? mainStream(changed) : null);
  };
  update(device);
  return { element, update };
}

function cardFacts(device) {
  const isMine = device.owner === session()?.user.username;
  const facts = [streams(device.streams)];
  if (device.agent_version) facts.push(device.agent_version);
  if (!isMine && device.owner) facts.push(`shared by ${device.owner}`);
  return facts.join(" · ");
}
