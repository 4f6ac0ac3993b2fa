/** The processes of this machine, and of every device that tells of its own. */

import { KeyedList, h, setText } from "./dom.js";
import { fleet, inOrder } from "./fleet.js";
import { processTable } from "./processes.js";
import { session } from "./session.js";

const MAX_OPEN = 15; // of those that the hub tells one page of at a time, one is its own machine
const OPEN_FIRST = 2;

export function suiteView(signal) {
  const list = h("div", {});
  const empty = h("p", { class: "empty" });
  const open = []; // in the order in which they were opened
  let isFirst = true;
  const machines = new KeyedList(list, (device) => device.device_id, (device) => machine(device, open, signal));
  const draw = () => {
    const all = fleet.all().filter((device) => device.has_suite).sort(inOrder);
    machines.show(all);
    empty.hidden = all.length > 0;
    if (all.length && isFirst) [...list.children].slice(0, OPEN_FIRST).forEach((each) => (each.open = true));
    isFirst &&= !all.length;
    setText(empty, fleet.isKnown ? "None of your devices tells of its processes." : "Loading…");
  };
  fleet.addEventListener("change", draw, { signal });
  draw();
  const lead = h("p", { class: "lead" }, "A restart is a kill: something outside always starts it again.");
  const content = [h("h1", {}, "Suite"), lead];
  if (session().user.is_admin) {
    const own = processTable("", true, signal);
    content.push(h("section", { class: "panel" }, h("h2", {}, "This hub’s machine"), own));
  }
  return { title: "Suite", content: [...content, h("h2", {}, "Devices"), list, empty] };
}

/** One device's table, which is asked for only while it is open. */
function machine(device, open, signal) {
  const name = h("span", { dir: "auto" });
  const place = h("div", {});
  const element = h("details", { class: "machine panel" }, h("summary", {}, h("h3", {}, name)), place);
  let ends = null;
  element.addEventListener("toggle", () => {
    ends?.abort();
    place.replaceChildren();
    if (open.includes(element)) open.splice(open.indexOf(element), 1);
    if (!element.open) return;
    open.push(element);
    if (open.length > MAX_OPEN) open[0].open = false;
    ends = new AbortController();
    place.append(processTable(device.device_id, device.role === "owner", AbortSignal.any([signal, ends.signal])));
  });
  const update = (changed) => setText(name, changed.device_name);
  update(device);
  return { element, update };
}
