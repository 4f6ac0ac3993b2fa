/** One's own account: password, tokens for programs, signing out. */

import { Failure, call } from "./api.js";
import { action, form } from "./controls.js";
import { KeyedList, follow, h, named } from "./dom.js";
import { live } from "./live.js";
import { loaded } from "./loaded.js";
import { session, signOut } from "./session.js";
import { moment, timeOf } from "./words.js";

const ROLES = { viewer: "Viewer: looks at all your devices", owner: "Owner: may do what you may, but for accounts" };

export function accountView(signal) {
  const { user, version } = session();
  const out = action({ label: "Sign out", run: leave });
  const content = [
    h("h1", {}, "Account"),
    h(
      "section",
      { class: "panel" },
      h("p", {}, "Signed in as ", named("strong", user.username), user.is_admin && ", an admin", "."),
      out,
    ),
    h("section", { class: "panel" }, h("h2", {}, "Password"), passwordForm(user)),
    h("section", { class: "panel" }, h("h2", {}, "Tokens for programs"), tokens(signal)),
    h("p", { class: "muted" }, `Planaria hub ${version} · `, h("a", { href: "/api/openapi.json" }, "its API")),
  ];
  return { title: "Account", content: h("div", { class: "medium stack" }, content) };
}

async function leave() {
  await signOut();
  document.dispatchEvent(new Event("signed-out"));
}

function passwordForm(user) {
  const password = { type: "password", required: true };
  const hint = "To change it ends all your other log-ins and all your tokens.";
  const differs = (text, { new_password }) => text !== new_password && "this is another one than above";
  const fields = [
    { name: "old_password", label: "Current password", ...password, autocomplete: "current-password" },
    { name: "new_password", label: "New password", hint, ...password, minlength: 8, autocomplete: "new-password" },
    { name: "repeated", label: "New password again", ...password, check: differs, autocomplete: "new-password" },
  ];
  const send = async ({ old_password, new_password }) => {
    try {
      await call("POST", "/api/auth/password", { old_password, new_password });
    } catch (error) {
      throw error.status === 401 ? new Failure("The current password is wrong.", 401) : error;
    }
    return "Changed. All other log-ins and all tokens have ended.";
  };
  const element = form({ id: "password", fields, submit: "Change password", send, isQuiet: true });
  // So that a password manager knows whose it is.
  const whose = { class: "unseen", tabindex: "-1", "aria-hidden": "true", autocomplete: "username", readonly: true };
  element.prepend(h("input", { ...whose, value: user.username }));
  return element;
}

function tokens(signal) {
  const place = h("div", {});
  const list = h("ul", { class: "people" });
  const made = h("div", { role: "status" });
  const end = async (token) => {
    await call("DELETE", `/api/tokens/${encodeURIComponent(token.id)}`);
    await again();
  };
  const rows = new KeyedList(list, (token) => token.id, (token) => tokenRow(token, end));
  const show = (all) => {
    rows.show(all);
    place.replaceChildren(all.length ? list : h("p", { class: "empty" }, "None."));
  };
  const again = loaded(place, () => call("GET", "/api/tokens", undefined, { signal }), show, signal);
  const fields = [
    { name: "name", label: "What it is for", longest: 64, autocomplete: "off" },
    { name: "role", label: "Role", options: ROLES },
    { name: "days", label: "Valid for (days)", type: "number", min: 1, max: 3650, value: "365", required: true },
  ];
  const send = async (values) => {
    const token = await call("POST", "/api/tokens", values);
    made.replaceChildren(shownOnce(token));
    await again();
  };
  const entry = form({ id: "token", fields, submit: "Make a token", send, isQuiet: true });
  return h("div", { class: "stack" }, place, made, entry);
}

/** The hub keeps only what checks it. */
function shownOnce({ name, token }) {
  const onfocus = () => text.select();
  const text = h("input", { id: "new-token", class: "code", readonly: true, value: token, onfocus });
  const run = async () => {
    await navigator.clipboard.writeText(token);
    return "Copied.";
  };
  const copy = navigator.clipboard && action({ label: "Copy", run });
  const label = h("label", { for: "new-token" }, `The token “${name}”, shown this once:`);
  return h("div", { class: "once" }, label, h("div", { class: "row" }, text, copy));
}

function tokenRow(token, end) {
  const facts = follow(h("span", { class: "muted" }), () => tokenFacts(token));
  const run = () => end(token);
  const button = action({ label: "End", name: `End ${token.name}`, confirm: `End token ${token.name}?`, run });
  return { element: h("li", {}, named("span", token.name), facts, button), update() {} };
}

function tokenFacts({ role, last_used, expires_at }) {
  const now = live.now();
  const used = last_used ? `used ${moment(timeOf(last_used), now)}` : "never used";
  return `${role} · ${used} · good until ${moment(timeOf(expires_at), now)}`;
}
