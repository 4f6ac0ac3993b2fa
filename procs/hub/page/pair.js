/** Pairing: six digits that stand beside a device make it the account's. */

import { call } from "./api.js";
import { form } from "./controls.js";
import { h } from "./dom.js";

export function pairView(_signal, code = "") {
  const fields = [
    {
      name: "pairing_code",
      label: "Code",
      hint: "Six digits, good for five minutes.",
      value: code,
      required: true,
      inputmode: "numeric",
      autocomplete: "one-time-code",
      check: (text) => !/^\d{3}\s?\d{3}$/.test(text) && "type the six digits of the device",
      class: "code",
    },
  ];
  const send = async ({ pairing_code }) => {
    const { device } = await call("POST", "/api/devices/pair", { pairing_code: pairing_code.replace(/\s/g, "") });
    location.hash = `#/devices/${encodeURIComponent(device.device_id)}`;
  };
  const followed = h("p", { class: "lead" }, "Only if this code stands beside your device: it becomes yours.");
  const help = [
    h("p", { class: "lead" }, "On the device, or on any machine that runs its side of Planaria:"),
    h("pre", { tabindex: "0", "aria-label": "Command" }, "scripts/pair.py"),
    h("p", {}, "It shows a code, and a QR code that leads here. Type the code, and the device is yours."),
  ];
  const title = code ? `Pair the device that shows ${code}?` : "Pair a device";
  const entry = form({ id: `pair${code}`, fields, submit: "Pair this device", send });
  return { title, content: h("div", { class: "narrow panel" }, h("h1", {}, title), code ? followed : help, entry) };
}
