/** One voice device: what is said there, live; something to say; and its switches. */

import { call } from "./api.js";
import { action, form } from "./controls.js";
import { KeyedList, announce, h, named, setText } from "./dom.js";
import { icon } from "./icons.js";
import { session } from "./session.js";
import { transcript } from "./transcript.js";
import { repeat, voice, voiceCall } from "./voice.js";
import { EVERY_MS, faultRow, showState, voiceTroubles, voiceView } from "./voicedevices.js";
import { deviceFaults, serviceFaults } from "./voicewords.js";

const LONGEST = 1000; // characters to say at once
const DISUSED = ["disabled", "elsewhere"];

export function voiceDeviceView(signal, name) {
  if (!session().user.is_admin) return voiceView(signal);
  const head = heading(name);
  const body = h("div", {});
  let isDrawn = false;
  let update = () => {};
  const draw = () => {
    const device = voice.device(name);
    head.update(device);
    if (Boolean(device) !== isDrawn) {
      isDrawn = Boolean(device);
      const parts = device ? whole(device, again, signal) : null;
      body.replaceChildren(...(parts ? [parts.element] : []));
      update = parts?.update ?? (() => {});
    }
    if (device) update(device);
  };
  const again = repeat(() => voice.look(signal), EVERY_MS, signal);
  voice.addEventListener("change", draw, { signal });
  draw();
  const ofAll = ({ services }) => serviceFaults(services);
  return { title: name, content: [head.element, voiceTroubles(ofAll, signal), body] };
}

function heading(name) {
  let current = null;
  const title = h("h1", { dir: "auto" }, name);
  const state = h("p", { class: "tone" });
  const back = h("a", { href: "#/voice", class: "back" }, icon("back"), "Voice");
  const list = h("ul", { class: "troubles" });
  const faults = new KeyedList(list, ({ text }) => text, faultRow);
  const gone = h("p", { class: "empty" }, "There is no such voice device, or it is no longer in devices.json.");
  const update = (device) => {
    current = device;
    gone.hidden = Boolean(device) || !voice.told;
    state.hidden = !device;
    showState(state, () => current);
    faults.show(device ? deviceFaults(device, voice.told.services).map((text) => ({ text })) : []);
  };
  return { element: h("div", { class: "head" }, h("div", {}, back, title, state, list, gone)), update };
}

function whole(device, again, signal) {
  const { name } = device;
  const tell = async (what, body) => {
    await call("POST", voiceCall(name, what), body);
    again();
  };
  const saying = sayForm(name, tell);
  const said = transcript(name, signal);
  const forget = action({
    label: "Forget what was said",
    confirm: "Forget all of it?",
    note: "What was said here is deleted, and the conversation begins anew.",
    kind: "danger",
    run: async () => {
      await tell("forget");
      said.clear();
      return "It is forgotten.";
    },
  });
  const switches = switchesOf(tell);
  const facts = h("dl", { class: "facts" });
  const left = section("Conversation", said.element, saying, forget);
  const aside = h("aside", {}, section("Switches", switches.element), section("About", facts));
  const update = (changed) => {
    forget.hidden = changed.state === "elsewhere";
    saying.hidden = DISUSED.includes(changed.state);
    switches.update(changed);
    describe(facts, changed);
  };
  return { element: h("div", { class: "columns" }, left, aside), update };
}

function section(title, ...content) {
  return h("section", { class: "panel" }, h("h2", {}, title), content);
}

function sayForm(name, tell) {
  const text = { name: "text", label: "Say", longest: LONGEST, autocomplete: "off" };
  const fields = [{ ...text, autocapitalize: "sentences", spellcheck: "true" }];
  const send = async (values) => {
    await tell("say", values);
    field.focus();
    return "It is said as soon as nobody speaks.";
  };
  const element = form({ id: `say-${name}`, fields, submit: "Say it", send, isQuiet: true });
  const field = element.querySelector("input");
  const button = element.querySelector("button");
  const check = () => {
    button.disabled = !field.value.trim();
  };
  element.addEventListener("input", check);
  element.addEventListener("emptied", check);
  check();
  return element;
}

function switchesOf(tell) {
  const does = (what, said) => async () => {
    await tell(what);
    announce(said);
  };
  const mute = action({ label: "Mute", run: does("mute", "It hears nothing now.") });
  const unmute = action({ label: "Unmute", run: does("unmute", "It hears again.") });
  const reconnect = action({ label: "Reconnect", run: does("reconnect", "It is connected to anew.") });
  const off = action({ label: "Disable", confirm: "Disable it?", run: does("disable", "Disabled."), kind: "danger" });
  const on = action({ label: "Enable", run: does("enable", "Enabled.") });
  const hearing = either(mute, unmute);
  const using = either(off, on);
  const elsewhere = h("p", { class: "empty" }, "Another voice backend talks through it: see there.");
  const row = h("div", { class: "row" }, hearing.elements, reconnect, using.elements);
  const update = (device) => {
    elsewhere.hidden = device.state !== "elsewhere";
    hearing.show(!device.is_enabled || device.state === "elsewhere" ? null : device.is_muted);
    reconnect.hidden = DISUSED.includes(device.state);
    using.show(!device.is_enabled);
  };
  return { element: h("div", { class: "stack" }, row, elsewhere), update };
}

/** Two buttons in one place, of which one is shown, or none: who has pressed the one by keyboard is on the other. */
function either(one, other) {
  const elements = [one, other];
  const show = (isOther) => {
    const wanted = isOther === null ? null : elements[Number(isOther)];
    const hadFocus = elements.some((each) => each !== wanted && each.contains(document.activeElement));
    for (const each of elements) each.hidden = each !== wanted;
    if (hadFocus) wanted?.querySelector("button").focus();
  };
  return { elements, show };
}

const INSTRUCTIONS = {
  __proto__: null,
  constant: "in words of its own",
  smalltalk: "small talk",
  quiz_show: "a quiz",
  guess_animal: "guessing an animal",
  news: "the news",
  unmute_explanation: "how this works",
};
const LANGUAGES = {
  __proto__: null,
  en: "English",
  fr: "French",
  "en/fr": "English or French",
  "fr/en": "French or English",
};
const ECHOES = { __proto__: null, none: "not cancelled", "half-duplex": "hears nothing while it speaks" };

function describe(facts, device) {
  const rows = {
    Address: `${device.host}:${device.port}`,
    Voice: device.voice,
    Instructions: INSTRUCTIONS[device.instructions_type] ?? device.instructions_type,
    Language: LANGUAGES[device.language] ?? device.language,
    Protocol: device.protocol,
    Microphone: device.microphone,
    Speaker: device.speaker,
    Echo: ECHOES[device.echo] ?? device.echo,
  };
  for (const [term, value] of Object.entries(rows)) {
    const known = facts.querySelector(`[data-of="${term}"]`);
    if (known) setText(known, value || "–");
    else facts.append(h("dt", {}, term), named("dd", value || "–", { "data-of": term }));
  }
}
