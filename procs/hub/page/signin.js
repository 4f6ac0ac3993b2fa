/** Signing in, in place of whatever view was asked for. */

import { form } from "./controls.js";
import { h } from "./dom.js";
import { signIn } from "./session.js";

export function signInView(_signal, welcome) {
  const fields = [
    { name: "username", label: "User name", longest: 64, autocomplete: "username" },
    { name: "password", label: "Password", type: "password", required: true, autocomplete: "current-password" },
  ];
  const send = async ({ username, password }) => {
    await signIn(username, password);
    welcome();
  };
  const help = h(
    "details",
    {},
    h("summary", {}, "First time here?"),
    h("p", {}, "The first account is ", h("strong", {}, "admin"), ". “make up” showed its password once."),
    h("p", {}, "On the hub’s machine this makes another one, and ends all its log-ins:"),
    h("pre", { tabindex: "0", "aria-label": "Command" }, "scripts/cli.py password --reset"),
    h("p", {}, "An admin makes other accounts, under Users."),
  );
  const title = "Sign in";
  const entry = form({ id: "signin", fields, submit: title, busy: "Signing in…", send });
  return { title, content: h("div", { class: "narrow panel" }, h("h1", {}, title), entry, help) };
}
