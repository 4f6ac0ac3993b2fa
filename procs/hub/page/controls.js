/** Forms and buttons that do something at the hub: they show that it is under way, and say why it did not work. */

import { announce, h } from "./dom.js";

const CONFIRM_MS = 4000;
const DRAFT = "draft ";

/** Forget what was typed: the next to sign in may be somebody else. */
export function forgetDrafts() {
  for (const key of Object.keys(sessionStorage)) if (key.startsWith(DRAFT)) sessionStorage.removeItem(key);
}

/** Keep what is typed into a control over reloads and sign-ins, and put back what was kept. */
export function keepDraft(control, key) {
  const kept = sessionStorage.getItem(DRAFT + key);
  if (kept !== null) control.value = kept;
  control.addEventListener("input", () => sessionStorage.setItem(DRAFT + key, control.value));
}

/** A form. `fields`: {name, label, hint?, options?, value?, ...attributes}; `send(values)` may raise Failure, and what
 * it returns is said beside the button. Passwords are emptied once they were sent, and never kept. */
export function form({ id, fields, submit, send, isQuiet = false }) {
  const controls = fields.map((field) => control(id, field));
  const button = h("button", { class: isQuiet ? "quiet" : "main" }, submit);
  const said = h("p", { class: "said", role: "status" });
  const fieldset = controls.map((each) => each.element);
  const element = h("form", { novalidate: true }, fieldset, h("div", { class: "row" }, button), said);
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    const wrong = controls.find((each) => !each.input.checkValidity());
    if (wrong) {
      say(said, `${wrong.label}: ${wrong.input.validationMessage}`, true);
      wrong.input.focus();
      return;
    }
    await underWay(button, said, async () => {
      const done = await send(Object.fromEntries(controls.map(({ input }) => [input.name, valueOf(input)])));
      for (const { input, initial } of controls) {
        input.value = initial;
        sessionStorage.removeItem(DRAFT + id + input.name);
      }
      return done;
    });
  });
  return element;
}

function control(form, { name, label, hint, options, value = "", ...attributes }) {
  const id = `${form}-${name}`;
  const described = hint ? `${id}-hint` : null;
  const given = { id, name, "aria-describedby": described, ...attributes };
  const input = options
    ? h("select", given, Object.entries(options).map(([key, text]) => h("option", { value: key }, text)))
    : h("input", { autocapitalize: "none", spellcheck: "false", ...given });
  const initial = options ? Object.keys(options)[0] : value;
  input.value = initial;
  if (attributes.type !== "password") keepDraft(input, form + name);
  const help = hint && h("p", { class: "hint", id: described }, hint);
  return { element: h("div", { class: "field" }, h("label", { for: id }, label), input, help), input, label, initial };
}

function valueOf(input) {
  return input.type === "number" ? input.valueAsNumber : input.value;
}

/** A button that does something by itself. With `confirm` it asks to be pressed once more, in place, for some seconds.
 * Returns an element with the button and a line for what is said. */
export function action({ label, name, confirm, run, kind = "quiet" }) {
  const button = h("button", { type: "button", class: kind, "aria-label": name }, label);
  const said = h("span", { class: "said", role: "status" });
  let back = 0;
  const disarm = () => {
    clearTimeout(back);
    button.classList.remove("armed");
    button.replaceChildren(label);
    if (name) button.setAttribute("aria-label", name);
  };
  button.addEventListener("click", () => {
    if (confirm && !button.classList.contains("armed")) {
      button.classList.add("armed");
      button.replaceChildren(confirm);
      button.removeAttribute("aria-label");
      announce(confirm);
      back = setTimeout(disarm, CONFIRM_MS);
      return;
    }
    disarm();
    underWay(button, said, run);
  });
  return h("span", { class: "action" }, button, said);
}

/** Not by `disabled`, which would take the focus away. */
async function underWay(button, said, run) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  say(said, "");
  try {
    say(said, (await run()) ?? "");
  } catch (error) {
    if (error.name !== "AbortError") say(said, error.message, true);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

function say(said, text, isError = false) {
  said.textContent = text;
  said.classList.toggle("error", isError);
}
