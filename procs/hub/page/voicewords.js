/** How voice devices are, in words. Pure. */

import { sentence, span } from "./words.js";

const TURNS = {
  __proto__: null,
  waiting_for_user: "listens",
  user_speaking: "somebody speaks",
  bot_speaking: "speaks",
};
const VOICE_STATES = {
  __proto__: null,
  disabled: ["disabled", "idle"],
  elsewhere: ["held by another voice backend", "idle"],
  connecting: ["not connected", "waits", "connecting"],
  connected: ["connected", "good"],
  waiting: ["not connected", "bad", "tries again"],
  over: ["not connected", "bad", "tries no more"],
};

/** How a voice device is, {text, tone}, which it has been for so many seconds, or NaN. */
export function voiceState({ state, turn, is_muted }, forS) {
  const [word, tone, ...more] = VOICE_STATES[state] ?? [state, "idle"];
  const facts = [Number.isNaN(forS) || tone === "idle" ? word : `${word} for ${span(forS)}`, ...more];
  if (state === "connected" && is_muted) facts.push("muted");
  if (state === "connected" && TURNS[turn] && !(is_muted && turn === "waiting_for_user")) facts.push(TURNS[turn]);
  return { text: facts.join(", "), tone };
}

const SERVICES = { __proto__: null, stt: "Hearing", tts: "Speaking", llm: "Thinking" };

/** What is wrong with what a voice backend needs: {stt: why}, "" for nothing. */
export function serviceFaults(services) {
  const down = Object.entries(services).filter(([, why]) => why);
  return down.map(([name, why]) => `${SERVICES[name] ?? name} (${name}): ${why}`);
}

/** All that is wrong with a voice device, but for what is `known` of all. */
export function deviceFaults({ state, problem, microphone, speaker, services }, known = {}) {
  const faults = problem && !["disabled", "elsewhere"].includes(state) ? [sentence(problem)] : [];
  if (state !== "connected") return faults;
  for (const [part, how] of [["Microphone", microphone], ["Speaker", speaker]]) {
    if (how && how !== "ok") faults.push(`${part}: ${how}`);
  }
  const own = Object.entries(services).filter(([name]) => !known[name]);
  return [...faults, ...serviceFaults(Object.fromEntries(own))];
}
