/** Accounts, for admins. */

import { call } from "./api.js";
import { action, form } from "./controls.js";
import { KeyedList, h, named, setText } from "./dom.js";
import { loaded } from "./loaded.js";
import { session } from "./session.js";
import { count } from "./words.js";

const NEW_PASSWORD = { type: "password", required: true, minlength: 8, autocomplete: "new-password" };
const ROLES = { user: "User: own and shared devices", admin: "Admin: accounts and this machine too" };

export function usersView(signal) {
  const heading = h("h1", {}, "Users");
  if (!session().user.is_admin) {
    return { title: "Users", content: [heading, h("p", {}, "Admins manage accounts; you are none.")] };
  }
  const place = h("div", {});
  const list = h("ul", { class: "people" });
  const change = async (user, how) => {
    await call("PATCH", pathOf(user), how);
    await again();
  };
  const remove = async (user) => {
    await call("DELETE", pathOf(user));
    await again();
  };
  const rows = new KeyedList(list, (user) => user.id, (user) => userRow(user, change, remove));
  const show = (users) => {
    rows.show(users);
    place.replaceChildren(list);
  };
  const again = loaded(place, () => call("GET", "/api/users", undefined, { signal }), show, signal);
  const content = [
    heading,
    h("section", { class: "panel" }, h("h2", {}, "Accounts"), place),
    h("section", { class: "panel" }, h("h2", {}, "Another account"), newUser(() => again())),
  ];
  return { title: "Users", content: h("div", { class: "medium stack" }, content) };
}

function pathOf(user) {
  return `/api/users/${encodeURIComponent(user.id)}`;
}

function newUser(made) {
  const fields = [
    { name: "username", label: "User name", longest: 64, autocomplete: "off" },
    { name: "password", label: "First password", ...NEW_PASSWORD },
    { name: "role", label: "Role", options: ROLES },
  ];
  const send = async ({ username, password, role }) => {
    await call("POST", "/api/users", { username, password, is_admin: role === "admin" });
    await made();
    return `${username} can sign in now.`;
  };
  return form({ id: "user", fields, submit: "Make the account", send, isQuiet: true });
}

function userRow(user, change, remove) {
  const facts = h("span", { class: "muted" });
  const { username } = user;
  const isMe = user.id === session().user.id;
  let current = user;
  const turn = h("span", {});
  const run = () => change(current, { is_admin: !current.is_admin });
  let wasAdmin = null;
  const update = (changed) => {
    current = changed;
    const kind = changed.is_admin ? "admin" : "user";
    setText(facts, `${kind} · ${count(changed.devices, "device")}${isMe ? " · you" : ""}`);
    if (changed.is_admin === wasAdmin) return; // a button that asks to be pressed again stays
    wasAdmin = changed.is_admin;
    const [label, verb] = wasAdmin ? ["Demote to user", "Demote"] : ["Promote to admin", "Promote"];
    turn.replaceChildren(action({ label, name: `${label}: ${username}`, confirm: `${verb} ${username}?`, run }));
  };
  const name = `Delete user ${username}`;
  const end = action({ label: "Delete", name, confirm: `${name}?`, run: () => remove(user), kind: "danger" });
  const more = h("details", {}, h("summary", {}, "Set a password"), newPassword(user, change));
  update(user);
  const others = isMe ? [] : [end, more];
  return { element: h("li", {}, named("span", username), facts, turn, others), update };
}

function newPassword(user, change) {
  const label = `New password of ${user.username}`;
  const fields = [{ name: "password", label, ...NEW_PASSWORD }];
  const send = async ({ password }) => {
    await change(user, { password });
    return "Set. All log-ins of this account have ended.";
  };
  return form({ id: `password-${user.id}`, fields, submit: "Set", send, isQuiet: true });
}
