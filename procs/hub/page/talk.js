/** A button to talk through a device: hold it, or press it once to begin and once to end. The microphone is asked for
 * only then, and let go of with it. */

import { announce, h, setText } from "./dom.js";
import { icon } from "./icons.js";

const HELD_MS = 400; // who holds it for longer has ended by letting go
const SAID_MS = 6000;
const WHY = {
  NotAllowedError: "This browser does not let the page use a microphone.",
  NotFoundError: "There is no microphone here.",
  NotReadableError: "Another program has the microphone.",
};

/** {element, offer}: the button, which ends with the signal, and is there where `offer` has found that it may work. `watch`: {mayHear, deafness(), speak(track)}. */
export function talkButton(name, watch, signal) {
  const label = h("span", {}, "Talk");
  const button = h("button", { type: "button", "aria-label": `Talk: ${name}`, "aria-pressed": "false" }, icon("talk"), label);
  const said = h("span", { class: "said", role: "status" });
  let wanted = 0; // counts what was pressed: permission may come when nobody wants to talk any more
  let microphone = null;
  let pressedAt = null;
  let forget = 0;
  const tell = (text, isError = false) => {
    clearTimeout(forget);
    setText(said, text);
    said.classList.toggle("error", isError);
    if (isError) forget = setTimeout(() => tell(""), SAID_MS);
  };
  const end = () => {
    wanted++;
    for (const track of microphone?.getTracks() ?? []) track.stop();
    microphone = null;
    watch.speak(null);
    button.setAttribute("aria-pressed", "false");
    setText(label, "Talk");
  };
  const begin = async () => {
    const mine = ++wanted;
    button.setAttribute("aria-pressed", "true");
    tell("");
    try {
      const deafness = await watch.deafness();
      if (deafness) throw new Error(deafness);
      if (mine !== wanted || signal.aborted) return;
      const found = await ask();
      if (mine !== wanted || signal.aborted) return found.getTracks().forEach((track) => track.stop());
      microphone = found;
      const [track] = found.getAudioTracks();
      track.addEventListener("ended", end);
      watch.speak(track);
      setText(label, "Talking");
      announce(`You are heard: ${name}`);
    } catch (error) {
      if (mine !== wanted) return;
      end();
      tell(WHY[error.name] ?? error.message, true);
    }
  };
  const isOn = () => button.getAttribute("aria-pressed") === "true";
  let wasOn = false;
  button.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    wasOn = isOn();
    pressedAt = event.timeStamp;
    if (!wasOn) begin();
  });
  const letGo = (event) => {
    if (pressedAt === null) return;
    const isHeld = event.timeStamp - pressedAt > HELD_MS;
    pressedAt = null;
    if (wasOn || (isHeld && isOn())) end();
  };
  addEventListener("pointerup", letGo, { signal });
  addEventListener("pointercancel", letGo, { signal });
  button.addEventListener("click", (event) => {
    if (event.detail) return; // a pointer's, which was seen above
    if (isOn()) end();
    else begin();
  });
  signal.addEventListener("abort", end);
  const element = h("span", { class: "action" }, button, said);
  const offer = () => (button.hidden = !watch.mayHear && !isOn());
  return { element, offer };
}

/** A microphone, without the echo of what is heard here. */
function ask() {
  if (!navigator.mediaDevices) throw new Error("A microphone needs a page by HTTPS.");
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  return navigator.mediaDevices.getUserMedia({ audio });
}
