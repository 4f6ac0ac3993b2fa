/** Elements from plain calls. Text is always text: nothing here parses HTML, and the CSP forbids it besides. */

const SVG = "http://www.w3.org/2000/svg";
const TICK_MS = 5000;

/** An element. Functions are listeners (onclick), true is an empty attribute, null and false are none. Styles belong in
 * the stylesheet; the CSP refuses a style attribute. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** The same for SVG. */
export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value != null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** Set text, but only where it is other: screen readers and selections stay where they are. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The children of `parent`, one an item, kept by key: what is unchanged is neither made anew nor moved.
 *
 * `make(item)` returns {element, update(item)}; update is called where the item is another object than before. */
export class KeyedList {
  #parent;
  #keyOf;
  #make;
  #rows = new Map();

  constructor(parent, keyOf, make) {
    this.#parent = parent;
    this.#keyOf = keyOf;
    this.#make = make;
  }

  show(items) {
    const focused = document.activeElement;
    const rows = new Map(items.map((item) => [this.#keyOf(item), this.#row(item)]));
    for (const [key, row] of this.#rows) if (!rows.has(key)) row.element.remove();
    this.#rows = rows;
    let next = this.#parent.firstElementChild;
    for (const { element } of rows.values()) {
      if (element === next) next = next.nextElementSibling;
      else this.#parent.insertBefore(element, next);
    }
    // To be moved takes the focus away; whoever had it keeps it.
    if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  }

  #row(item) {
    const known = this.#rows.get(this.#keyOf(item));
    if (!known) return { ...this.#make(item), item };
    if (known.item !== item) known.update(item);
    known.item = item;
    return known;
  }
}

/** Elements whose text depends on what time it is. */
const ticking = new Map();

/** Have the text of an element follow the clock for as long as it is in the page; `words()` says it. */
export function follow(element, words) {
  ticking.set(element, words);
  setText(element, words());
  return element;
}

/** Say all of it again now. */
export function tick() {
  for (const [element, words] of ticking) {
    if (element.isConnected) setText(element, words());
    else ticking.delete(element);
  }
}

setInterval(tick, TICK_MS);

/** Tell those who listen to the page what those who look at it see. */
export function announce(text) {
  document.getElementById("said").textContent = text;
}

/** Say in the tab what is shown. */
export function entitle(title) {
  document.title = `${title} · Planaria`;
}

/** Name any text of a person's: its direction is its own. */
export function named(tag, text, properties = {}) {
  return h(tag, { dir: "auto", ...properties }, text);
}
