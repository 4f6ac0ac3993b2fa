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
      pattern: "\\s*\\d{3}\\s?\\d{3}\\s*",
      title: "six digits",
      class: "code",
    },
  ];
  const send = async ({ pairing_code }) => {
    const { device } = await call("POST", "/api/devices/pair", { pairing_code: pairing_code.replace(/\s/g, "") });
    location.hash = `#/devices/${encodeURIComponent(device.device_id)}`;
  };
  const help = [
    h("p", { class: "lead" }, "On the device, or on any machine that runs its side of Planaria:"),
    h("pre", { tabindex: "0", "aria-label": "Command" }, "scripts/pair.py"),
    h("p", {}, "It shows a code, and a QR code that leads here. Type the code, and the device is yours."),
  ];
  const title = "Pair a device";
  const entry = form({ id: `pair${code}`, fields, submit: "Pair this device", send });
  return { title, content: h("div", { class: "narrow panel" }, h("h1", {}, title), help, entry) };
}
