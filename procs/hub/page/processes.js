/** The processes of one machine, live: how each is, why it ended last, how soon it was back; a button kills it. */

import { Failure, call, deviceCall } from "./api.js";
import { action } from "./controls.js";
import { KeyedList, announce, follow, h, setText, svg } from "./dom.js";
import { asKnown, live } from "./live.js";
import { cell, fill, table } from "./table.js";
import { traffic } from "./traffic.js";
import { bytes, loss, moment, processState, recovery, shortly, span, timeOf } from "./words.js";

const COLUMNS = ["Process", "State", "Restarts in 1 h", "Ended last", "Memory", "Time to recover"];

/** `deviceId` is "" for the hub's own machine. */
export function processTable(deviceId, mayRestart, signal) {
  const headings = [...COLUMNS];
  if (mayRestart) headings.push(h("td", { role: "columnheader" }, h("span", { class: "unseen" }, "Restart it")));
  const { element, body } = table("Processes", headings);
  const carried = traffic();
  const troubles = h("ul", { class: "troubles" });
  const empty = h("p", { class: "empty" }, "Loading…");
  const restart = mayRestart ? (name, pid) => kill(deviceId, name, pid) : null;
  const rows = new KeyedList(body, ({ process }) => process.name, (told) => processRow(told, restart));
  live.want({ suite: [deviceId] }, signal);
  const listen = ({ detail }) => {
    if (detail.device_id !== deviceId) return;
    const skewMs = live.now() - timeOf(detail.at); // its clock may differ from the hub's
    rows.show(detail.processes.map((process) => ({ process, skewMs, heardAt: live.now() })));
    troubles.replaceChildren(...detail.troubles.map((text) => h("li", {}, text)));
    empty.hidden = detail.processes.length > 0;
    setText(empty, "No process is watched here.");
    element.hidden = !detail.processes.length;
    carried.show(detail);
  };
  live.addEventListener("suite", listen, { signal });
  return h("div", { class: "suite" }, troubles, element, empty, carried.elements);
}

/** To name the pid makes it safe to press twice: a process that is back already is left alone. */
async function kill(deviceId, process, pid) {
  const path = deviceId ? deviceCall(deviceId, "suite", "restart") : "/api/suite/restart";
  await call("POST", path, { process, pid });
}

function processRow(told, restart) {
  const { name } = told.process;
  const cells = {
    state: cell("condition"),
    restarts: cell("restarts", "Restarts in 1 h:"),
    ended: cell("ended", "Ended last:"),
    memory: cell("memory", "Memory:"),
    recovery: cell("recovery", "Time to recover:"),
  };
  const pid = h("span", { class: "muted" });
  const state = h("span", { class: "tone" });
  const age = h("span", { class: "muted when" });
  const ended = h("span", {});
  const endedAt = h("span", { class: "muted when" });
  cells.state.append(state, " ", age);
  cells.ended.append(ended, " ", endedAt);
  let current = told;
  let killed = 0; // the pid that was killed from here
  const button = restart && cell("restart small");
  button?.append(
    action({
      label: "Restart",
      name: `Restart ${name}`,
      confirm: "Kill?",
      confirmName: `Kill ${name}?`,
      note: loss(name),
      run: async () => {
        killed = current.process.pid;
        if (!killed) throw new Failure("It does not run now.");
        await restart(name, killed);
      },
    }),
  );
  const heading = h("th", { role: "rowheader", scope: "row" }, h("span", {}, name), " ", pid);
  const element = h("tr", { role: "row" }, heading, Object.values(cells), button);
  const update = (changed) => {
    const { process } = changed;
    if (process.pid && process.pid !== current.process.pid) blink(element);
    current = changed;
    const { tone } = processState(process);
    button?.toggleAttribute("data-off", !process.pid && process.state === "STOPPED");
    setText(pid, process.pid ? `pid ${process.pid}` : "no pid");
    follow(state, () => asKnown(processState(current.process).text));
    state.dataset.tone = tone;
    follow(age, () => (current.process.pid && !live.isAway ? `for ${span(ageS(current))}` : ""));
    fill(cells.restarts, cells.restarts, process.restarts_hour);
    fill(cells.ended, ended, process.last_end);
    follow(endedAt, () => endedWhen(current));
    fill(cells.memory, cells.memory, process.memory && bytes(process.memory));
    drawRecovery(cells.recovery, process.recovery);
    if (killed && tone === "good" && process.pid !== killed) {
      killed = 0;
      announce(`${name} is back as pid ${process.pid}`);
    }
  };
  update(told);
  return { element, update };
}

function ageS({ process, heardAt }) {
  return process.age_s + (live.now() - heardAt) / 1000;
}

function endedWhen({ process, skewMs }) {
  const at = timeOf(process.last_end_at);
  return Number.isNaN(at) ? "" : moment(at + skewMs, live.now());
}

/** Mark what has just come back, once. */
function blink(row) {
  row.classList.remove("fresh");
  requestAnimationFrame(() => row.classList.add("fresh"));
}

const BAR = 5; // units of width, one of them a gap
const HEIGHT = 20;

/** A histogram of bars, one a bound; what it says stands beside it in words. */
function drawRecovery(place, told) {
  const { counts = [], p50_ms } = told;
  const words = recovery(told);
  const drawn = `${words} ${counts}`;
  if (place.dataset.drawn === drawn) return;
  place.dataset.drawn = drawn;
  const most = Math.max(0, ...counts);
  place.toggleAttribute("data-empty", !most);
  if (!most) {
    place.replaceChildren(h("span", { class: "muted", title: words }, "–"));
    return;
  }
  const bars = counts.map((count, at) => {
    const height = count ? Math.max(2, (HEIGHT * count) / most) : 1;
    return svg("rect", { x: at * BAR, y: HEIGHT - height, width: BAR - 1, height, class: count ? "" : "none" });
  });
  const viewBox = `0 0 ${counts.length * BAR} ${HEIGHT}`;
  const drawing = { class: "histogram", viewBox, role: "img", "aria-label": words };
  const chart = svg("svg", drawing, svg("title", {}, words), bars);
  place.replaceChildren(chart, h("span", { class: "muted" }, p50_ms == null ? "" : shortly(p50_ms)));
}
