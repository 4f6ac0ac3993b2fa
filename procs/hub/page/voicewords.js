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
  connecting: ["connecting", "waits"],
  connected: ["connected", "good"],
  waiting: ["not connected, tries again", "bad"],
  over: ["not connected, tries no more", "bad"],
};

/** How a voice device is, {text, tone}, which it has been for so many seconds, or NaN. */
export function voiceState({ state, turn, is_muted }, forS) {
  const [word, tone] = VOICE_STATES[state] ?? [state, "idle"];
  const facts = [Number.isNaN(forS) || tone === "idle" ? word : `${word} for ${span(forS)}`];
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

/** All that is wrong with a voice device. */
export function deviceFaults({ state, problem, microphone, speaker, services }) {
  const faults = problem && state !== "connected" && state !== "disabled" ? [sentence(problem)] : [];
  if (state !== "connected") return faults;
  for (const [part, how] of [["Microphone", microphone], ["Speaker", speaker]]) {
    if (how && how !== "ok") faults.push(`${part}: ${how}`);
  }
  return [...faults, ...serviceFaults(services)];
}
