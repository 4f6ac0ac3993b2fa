/** Forms and buttons that do something at the hub: they show that it is under way, and say why it did not work. */

import { announce, h, setText } from "./dom.js";
import { nameFault } from "./words.js";

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

/** A form. `fields`: {name, label, hint?, options?, value?, longest?, check?, ...attributes}. A name has `longest`
 * characters; `check(value, values)` says what is wrong. `send(values)` may raise Failure, and what it returns is said
 * beside the button, which says `busy` meanwhile. Fields are emptied once they were sent ("emptied" is dispatched), and
 * passwords never kept. */
export function form({ id, fields, submit, send, busy = submit, isQuiet = false }) {
  const controls = fields.map((field) => control(id, field));
  const button = h("button", { class: isQuiet ? null : "main" }, submit);
  const said = h("p", { class: "said", role: "status" });
  const fieldset = controls.map((each) => each.element);
  const element = h("form", { novalidate: true }, fieldset, h("div", { class: "row" }, button), said);
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(controls.map(({ input }) => [input.name, valueOf(input)]));
    const wrong = controls.find((each) => fault(each, values));
    if (wrong) {
      say(said, `${wrong.label}: ${fault(wrong, values)}`, true);
      wrong.input.focus();
      return;
    }
    await underWay(button, said, async () => {
      setText(button, busy);
      const done = await send(values).finally(() => setText(button, submit));
      for (const { input, initial } of controls) {
        if (valueOf(input) !== values[input.name]) continue; // typed meanwhile, for the next one
        input.value = initial;
        sessionStorage.removeItem(DRAFT + id + input.name);
      }
      element.dispatchEvent(new Event("emptied"));
      return done;
    });
  });
  element.addEventListener("input", () => say(said, ""));
  return element;
}

/** What is wrong with what was typed; empty for nothing. */
function fault({ input, longest, check }, values) {
  const value = values[input.name];
  return (longest && nameFault(value, longest)) || check?.(value, values) || input.validationMessage;
}

function control(form, { name, label, hint, options, longest, check, value = "", ...attributes }) {
  const id = `${form}-${name}`;
  const described = hint ? `${id}-hint` : null;
  const given = { id, name, "aria-describedby": described, required: Boolean(longest), ...attributes };
  const input = options
    ? h("select", given, Object.entries(options).map(([key, text]) => h("option", { value: key }, text)))
    : h("input", { autocapitalize: "none", spellcheck: "false", ...given });
  const initial = options ? Object.keys(options)[0] : value;
  input.value = initial;
  if (attributes.type !== "password") keepDraft(input, form + name);
  const help = hint && h("p", { class: "hint", id: described }, hint);
  const element = h("div", { class: "field" }, h("label", { for: id }, label), input, help);
  return { element, input, label, initial, longest, check };
}

/** Blanks around a name come from pasting; those of a password are its own. */
function valueOf(input) {
  if (input.type === "number") return input.valueAsNumber;
  return input.type === "text" ? input.value.trim() : input.value;
}

/** A button that does something by itself. With `confirm` it asks to be pressed once more, in place, for some seconds,
 * and says `note` meanwhile; `name` and `confirmName` are for screen readers. It has room for both labels, so that
 * nothing moves between two presses. Returns an element with the button and a line for what is said. */
export function action({ label, name = label, confirm, confirmName = confirm, note = "", run, kind }) {
  const words = h("span", {});
  const button = h("button", { type: "button", class: kind }, words);
  const said = h("span", { class: "said", role: "status" });
  let back = 0;
  const arm = (isArmed) => {
    clearTimeout(back);
    button.classList.toggle("armed", isArmed);
    setText(words, isArmed ? confirm : label);
    button.setAttribute("aria-label", isArmed ? confirmName : name);
    if (confirm) button.dataset.other = isArmed ? label : confirm;
  };
  const disarm = () => {
    arm(false);
    say(said, "");
  };
  arm(false);
  button.addEventListener("click", () => {
    if (confirm && !button.classList.contains("armed")) {
      arm(true);
      announce(confirmName);
      say(said, note);
      back = setTimeout(disarm, CONFIRM_MS);
      return;
    }
    disarm();
    underWay(button, said, run);
  });
  return h("span", { class: "action" }, button, said);
}

let noted = null; // where something was said last: what is done next may make it untrue

/** Not by `disabled`, which would take the focus away. */
async function underWay(button, said, run) {
  if (button.getAttribute("aria-busy") === "true") return;
  button.setAttribute("aria-busy", "true");
  if (noted) say(noted, "");
  noted = said;
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
