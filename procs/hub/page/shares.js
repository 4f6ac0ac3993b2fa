/** With whom a device is shared, as what. */

import { call, deviceCall } from "./api.js";
import { action, form } from "./controls.js";
import { KeyedList, h, named, setText } from "./dom.js";
import { live } from "./live.js";
import { loaded } from "./loaded.js";

const ROLES = { viewer: "Viewer: looks", owner: "Owner: changes, restarts, shares" };

export function sharing(deviceId, signal) {
  const place = h("div", {});
  const list = h("ul", { class: "people" });
  const take = async (username) => {
    await call("DELETE", deviceCall(deviceId, "shares", username));
    await again();
  };
  const rows = new KeyedList(list, (share) => share.username, (share) => shareRow(share, take));
  const show = (shares) => {
    rows.show(shares);
    place.replaceChildren(shares.length ? list : h("p", { class: "empty" }, "With nobody."));
  };
  // Somebody else may share it, too, or leave.
  const listen = ({ detail }) => detail.device_id === deviceId && detail.event.kind.endsWith("shared") && again();
  live.addEventListener("event", listen, { signal });
  const again = loaded(place, () => call("GET", deviceCall(deviceId, "shares"), undefined, { signal }), show, signal);
  const fields = [
    { name: "username", label: "User name", longest: 64, autocomplete: "off" },
    { name: "role", label: "Role", options: ROLES },
  ];
  const send = async ({ username, role }) => {
    await call("PUT", deviceCall(deviceId, "shares", username), { role });
    await again();
    return `Shared with ${username}.`;
  };
  const entry = form({ id: `share-${deviceId}`, fields, submit: "Share", send, isQuiet: true });
  return h("div", { class: "stack" }, place, entry);
}

function shareRow(share, take) {
  const { username } = share;
  const role = h("span", { class: "muted" });
  const run = () => take(username);
  const name = `Take away from ${username}`;
  const button = action({ label: "Take away", name, confirm: `Take share from ${username}?`, run });
  const update = (changed) => setText(role, changed.role);
  update(share);
  return { element: h("li", {}, named("span", username), role, button), update };
}
