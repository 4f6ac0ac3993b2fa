/** The processes of this machine, and of every device that tells of its own. */

import { KeyedList, h, setText } from "./dom.js";
import { fleet, inOrder } from "./fleet.js";
import { live } from "./live.js";
import { processTable } from "./processes.js";
import { session } from "./session.js";
import { timeOf } from "./words.js";

const MAX_OPEN = 15; // of those that the hub tells one page of at a time, one is its own machine
const OPEN_FIRST = 2;
const SAME_S = 2; // between when two tellers saw one process start

export function suiteView(signal) {
  const list = h("div", { class: "stack" });
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
  const told = new Map(); // by device, "" for the hub's own machine
  const listen = ({ detail }) => {
    told.set(detail.device_id, detail);
    for (const each of open) if (areSame(told.get(""), told.get(each.dataset.device))) fold(each);
  };
  live.addEventListener("suite", listen, { signal });
  draw();
  const lead = h("p", { class: "lead" }, "A restart is a kill: something outside always starts it again.");
  const content = [h("h1", {}, "Suite"), lead];
  if (session().user.is_admin) {
    const own = processTable("", true, signal);
    content.push(h("section", { class: "panel" }, h("h2", {}, "This hub’s machine"), own));
  }
  return { title: "Suite", content: [...content, h("h2", {}, "Devices"), list, empty] };
}

/** Whether two tables are of one machine: in containers pids alone may be the same by chance. */
function areSame(one, other) {
  if (!one?.processes.length || one.processes.length !== other?.processes.length) return false;
  const startOf = (suite, process) => timeOf(suite.at) / 1000 - process.age_s;
  const isThere = (its) => other.processes.some((each) => isOne(its, each));
  const isOne = (its, each) =>
    each.name === its.name && each.pid === its.pid && Math.abs(startOf(one, its) - startOf(other, each)) < SAME_S;
  return one.processes.every(isThere);
}

/** Once; whoever opens it again wants it so. */
function fold(machine) {
  if (machine.matches(".own")) return;
  machine.classList.add("own");
  machine.open = false;
  machine.firstChild.append(h("span", { class: "muted" }, " the same machine as the hub’s, above"));
}

/** One device's table, which is asked for only while it is open. */
function machine(device, open, signal) {
  const name = h("span", { dir: "auto" });
  const place = h("div", {});
  const element = h("details", { class: "machine panel" }, h("summary", {}, h("h3", {}, name)), place);
  element.dataset.device = device.device_id;
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
