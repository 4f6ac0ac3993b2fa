/** Tables that are lists where there is no room for columns. Roles are written out: there the rows are none for CSS. */

import { h, setText } from "./dom.js";

/** {element, body}: it is hidden until there is something in it; `headings` are names or cells. */
export function table(name, headings, ...above) {
  const body = h("tbody", { role: "rowgroup" });
  const row = headings.map((it) => (it.nodeType ? it : h("th", { role: "columnheader", scope: "col" }, it)));
  const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, row));
  const element = h("table", { class: "rows", role: "table", "aria-label": name, hidden: true }, above, head, body);
  return { element, body };
}

/** `label` says what it is about where there is no room for a heading. */
export function cell(kind, label) {
  return h("td", { role: "cell", class: kind, "data-label": label });
}

/** Say it within the cell, or that there is nothing to say. */
export function fill(cell, element, value) {
  cell.toggleAttribute("data-empty", !value);
  setText(element, value ? String(value) : "–");
}
