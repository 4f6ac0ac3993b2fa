/** The devices through which people talk with the voice backend of the hub's machine, for admins. */

import { KeyedList, follow, h, setText } from "./dom.js";
import { asKnown, live } from "./live.js";
import { session } from "./session.js";
import { repeat, voice } from "./voice.js";
import { deviceFaults, serviceFaults, voiceState } from "./voicewords.js";
import { count, timeOf } from "./words.js";

export const EVERY_MS = 2000; // between two looks at how they are

export function voiceView(signal) {
  const heading = h("h1", {}, "Voice");
  if (!session().user.is_admin) {
    return { title: "Voice", content: [heading, h("p", {}, "Admins talk through voice devices; you are none.")] };
  }
  const troubles = voiceTroubles(({ problems, services }) => [...problems, ...serviceFaults(services)], signal);
  const list = h("ul", { class: "people" });
  const empty = h("p", { class: "empty" });
  const rows = new KeyedList(list, (device) => device.name, deviceRow);
  const draw = () => {
    rows.show(voice.told?.devices ?? []);
    panel.hidden = !voice.told;
    setText(empty, emptiness(voice.told));
    empty.hidden = !empty.textContent;
  };
  const panel = h("section", { class: "panel", "aria-label": "Voice devices" }, list, empty);
  voice.addEventListener("change", draw, { signal });
  draw();
  repeat(() => voice.look(signal), EVERY_MS, signal);
  const lead = h("p", { class: "lead" }, "Microphones and speakers that the voice backend of the hub’s machine talks through.");
  return { title: "Voice", content: [heading, lead, troubles, panel] };
}

function emptiness(told) {
  if (!told || told.devices.length) return "";
  return told.is_configured ? "There is no device in devices.json." : "It has nobody to talk to: there is no devices.json.";
}

/** That the backend does not answer, or what `faultsOf` finds in its answer; read out when it comes up. */
export function voiceTroubles(faultsOf, signal) {
  const list = h("ul", { class: "troubles" });
  const faults = new KeyedList(list, ({ text }) => text, faultRow);
  const why = h("p", {});
  const draw = () => {
    const all = voice.why ? [] : faultsOf(voice.told);
    faults.show([...new Set(all)].map((text) => ({ text })));
    why.hidden = !voice.why;
    why.className = voice.why === "Loading…" ? "empty" : "error";
    setText(why, voice.why);
  };
  voice.addEventListener("change", draw, { signal });
  draw();
  return h("div", { role: "status" }, why, list);
}

/** One thing that is wrong. */
export function faultRow({ text }) {
  return { element: h("li", { dir: "auto" }, text), update() {} };
}

/** How a device is, in words, for as long as that is known: into an element, which keeps on saying it. */
export function showState(element, deviceNow) {
  const words = () => {
    const device = deviceNow();
    if (!device) return "";
    const { text, tone } = voiceState(device, (live.now() - timeOf(device.since)) / 1000);
    element.dataset.tone = voice.why ? "idle" : tone;
    return voice.why && !live.isAway ? `last known: ${text}` : asKnown(text);
  };
  follow(element, words);
}

function deviceRow(device) {
  let current = device;
  const link = h("a", { dir: "auto", href: `#/voice/${encodeURIComponent(device.name)}` }, device.name);
  const state = h("span", { class: "tone" });
  const facts = h("span", { class: "muted" });
  const list = h("ul", { class: "troubles" });
  const faults = new KeyedList(list, ({ text }) => text, faultRow);
  const update = (changed) => {
    current = changed;
    showState(state, () => current);
    const lines = changed.lines ? count(changed.lines, "line") : "nothing said yet";
    setText(facts, [changed.voice, `${changed.host}:${changed.port}`, lines].filter(Boolean).join(" · "));
    faults.show(deviceFaults(changed, voice.told?.services).map((text) => ({ text })));
  };
  update(device);
  return { element: h("li", {}, link, facts, state, list), update };
}
