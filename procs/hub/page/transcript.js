/** What is said at a voice device, live: the newest line stands lowest, and one that is still being said grows. */

import { call } from "./api.js";
import { KeyedList, follow, h, named, setText } from "./dom.js";
import { live } from "./live.js";
import { repeat, voiceCall } from "./voice.js";
import { moment, timeOf } from "./words.js";

const EVERY_MS = 1000;
const KEPT = 300; // lines
const NEAR_PX = 32; // of the end: so near, whoever reads wants to see what comes
const SILENCE = "...";
const NOTHING = "Nothing has been said yet.";
const WHO = { __proto__: null, user: "Person", assistant: "Voice" };

/** {element, clear}: `clear` is for who has had it forgotten. */
export function transcript(name, signal) {
  const lines = new Map(); // by number
  const list = h("ol", {});
  const place = h("div", { class: "transcript", role: "log", "aria-live": "polite", "aria-label": "Conversation", tabindex: "0" }, list);
  const empty = h("p", { class: "empty" }, "Loading…");
  const rows = new KeyedList(list, (line) => line.number, lineRow);
  const newest = h("button", { type: "button", hidden: true, onclick: () => toEnd() }, "To the newest");
  let after = 0;
  let isAtEnd = true;
  const toEnd = () => {
    place.scrollTop = place.scrollHeight;
  };
  place.addEventListener("scroll", () => {
    isAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < NEAR_PX;
    if (isAtEnd) newest.hidden = true;
  });
  const observer = new ResizeObserver(() => isAtEnd && toEnd()); // a phone was turned
  observer.observe(place);
  signal.addEventListener("abort", () => observer.disconnect());
  const show = (told) => {
    for (const line of told.lines) {
      // What was said was forgotten: the numbers begin anew.
      for (const { number, at } of lines.values()) if (number > line.number && at < line.at) lines.delete(number);
      lines.set(line.number, line);
    }
    const shown = [...lines.values()].sort((one, other) => one.number - other.number).slice(-KEPT);
    for (const number of lines.keys()) if (number < shown[0].number) lines.delete(number);
    place.hidden = false; // before it is scrolled
    rows.show(shown);
    if (isAtEnd) toEnd();
    else newest.hidden = false;
  };
  const isNews = (line) => JSON.stringify(line) !== JSON.stringify(lines.get(line.number));
  const look = async () => {
    try {
      const told = await call("GET", `${voiceCall(name, "lines")}?after=${after}`, undefined, { signal });
      if (signal.aborted) return;
      if (told.next < after) lines.clear(); // the backend has begun to count anew: next time all is asked for
      after = told.next < after ? 0 : told.next;
      if (told.lines.some(isNews)) show(told);
      setText(empty, lines.size ? "" : NOTHING);
    } catch (error) {
      if (error.name !== "AbortError" && !lines.size) setText(empty, error.message);
    }
    empty.hidden = lines.size > 0;
    if (!lines.size) place.hidden = true;
  };
  const clear = () => {
    lines.clear();
    rows.show([]);
    place.hidden = true;
    newest.hidden = true;
    empty.hidden = false;
    setText(empty, NOTHING);
  };
  place.hidden = true;
  repeat(look, EVERY_MS, signal);
  return { element: h("div", { class: "talk" }, empty, place, newest), clear };
}

/** A person's turn that is nothing but dots is one in which nobody spoke. */
function spoken({ role, text, is_final }) {
  if (role === "user" && text === SILENCE) return "(silence)";
  return is_final ? text : `${text}…`;
}

/** While it grows it is busy: a screen reader reads it once, when it is whole. */
function lineRow(line) {
  const at = timeOf(line.at);
  const when = h("time", { class: "muted" });
  if (!Number.isNaN(at)) {
    when.setAttribute("datetime", new Date(at).toISOString());
    when.setAttribute("title", new Date(at).toLocaleString());
    follow(when, () => moment(at, live.now()));
  }
  const text = named("p", "");
  const who = h("p", { class: "muted" }, h("strong", {}, WHO[line.role] ?? line.role), " ", when);
  const element = h("li", { "data-role": line.role, "aria-atomic": "true" }, who, text);
  const update = (changed) => {
    element.setAttribute("aria-busy", String(!changed.is_final));
    setText(text, spoken(changed));
  };
  update(line);
  return { element, update };
}
