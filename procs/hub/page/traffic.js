/** What a machine carries: through its tunnel, peer by peer, and to those who watch, stream by stream. */

import { KeyedList, follow, h, named } from "./dom.js";
import { asKnown } from "./live.js";
import { cell, fill, table } from "./table.js";
import { percent, rate, shortly } from "./words.js";

/** {element, show(suite)}: two tables, each while there is something in it. */
export function traffic() {
  const peers = figures("Tunnel", "Peer", (its) => its.peer, {
    State: peerState,
    Path: ({ path, plane, remote }) => words([path, plane && `plane ${plane}`, remote]),
    "Round trip": ({ round_trip_ms: ms }) => told(ms, shortly),
    Sent: ({ sent_bits_per_s: bits }) => told(bits, rate),
    Received: ({ received_bits_per_s: bits }) => told(bits, rate),
    Dropped: ({ dropped = {} }) => counted(dropped).replaceAll("_", " "),
  });
  const streams = figures("Watched now", "Stream", (its) => its.stream, {
    Viewers: ({ viewers }) => viewers,
    Path: ways,
    "Bit rate": ({ bits_per_s: bits = 0 }) => rate(bits),
    "Worst loss": ({ loss = 0 }) => percent(loss),
  });
  const show = ({ tunnel = [], watching = [] }) => {
    peers.show(tunnel);
    streams.show(watching);
  };
  return { elements: [peers.element, streams.element], show };
}

function peerState({ is_up, why }) {
  return is_up ? { text: "up", tone: "good" } : { text: why ? `down: ${why}` : "down", tone: "bad" };
}

/** "2 direct, 1 relayed"; who still connects has no path yet. */
function ways({ viewers, direct = 0, relayed = 0 }) {
  return counted({ direct, relayed, connecting: viewers - direct - relayed });
}

function counted(counts) {
  return words(Object.entries(counts).map(([what, n]) => n > 0 && `${n} ${what}`));
}

function words(facts) {
  return facts.filter(Boolean).join(", ");
}

function told(figure, inWords) {
  return figure == null ? "" : inWords(figure);
}

/** `columns`: {heading: words of an item}, or {text, tone}. */
function figures(name, heading, nameOf, columns) {
  const { element, body } = table(name, [heading, ...Object.keys(columns)], h("caption", {}, name));
  const rows = new KeyedList(body, nameOf, (item) => row(nameOf(item), columns, item));
  const show = (items) => {
    rows.show(items);
    element.hidden = !items.length;
  };
  return { element, show };
}

function row(name, columns, item) {
  const heading = h("th", { role: "rowheader", scope: "row" }, named("span", name));
  const cells = Object.keys(columns).map((label) => cell("figure", label === "State" ? null : `${label}:`));
  const update = (changed) => {
    Object.values(columns).forEach((column, at) => draw(cells[at], column(changed)));
  };
  update(item);
  return { element: h("tr", { role: "row" }, heading, cells), update };
}

function draw(place, said) {
  if (!said.tone) return fill(place, place, said);
  const state = place.firstChild ?? place.appendChild(h("span", { class: "tone", dir: "auto" }));
  state.dataset.tone = said.tone;
  follow(state, () => asKnown(said.text));
}
