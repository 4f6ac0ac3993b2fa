/** What a device has been through, newest first, live. */

import { call, deviceCall } from "./api.js";
import { action } from "./controls.js";
import { KeyedList, follow, h, named } from "./dom.js";
import { live } from "./live.js";
import { loaded } from "./loaded.js";
import { moment, timeOf } from "./words.js";

const FIRST = 5;
const MORE = 20;

export function eventList(deviceId, signal) {
  const events = new Map(); // by id; ids grow
  const list = h("ol", { class: "events" });
  const rows = new KeyedList(list, (event) => event.id, eventRow);
  const place = h("div", { class: "stack" });
  const path = deviceCall(deviceId, "events");
  let shown = FIRST;
  let areOlder = false;
  const add = (more) => {
    for (const event of more) if (!events.has(event.id)) events.set(event.id, event);
    const all = [...events.values()].sort((one, other) => other.id - one.id);
    rows.show(all.slice(0, shown));
    older.hidden = !areOlder && all.length <= shown;
  };
  const showOlder = async () => {
    shown += MORE;
    if (!areOlder) return add([]);
    const before = Math.min(...events.keys());
    const told = await call("GET", `${path}?limit=${MORE}&before=${before}`, undefined, { signal });
    areOlder = told.more;
    return add(told.events);
  };
  const older = action({ label: "More", run: showOlder });
  const show = (told) => {
    const isGap = told.more && !told.events.some((event) => events.has(event.id));
    if (isGap) events.clear(); // more has happened meanwhile than was fetched
    if (isGap || !events.size) areOlder = told.more;
    add(told.events);
    place.replaceChildren(events.size ? list : h("p", { class: "empty" }, "Nothing has happened yet."), older);
  };
  live.want({ events: [deviceId] }, signal);
  loaded(place, () => call("GET", `${path}?limit=${FIRST}`, undefined, { signal }), show, signal);
  live.addEventListener(
    "event",
    ({ detail }) => detail.device_id === deviceId && show({ events: [detail.event], more: false }),
    { signal },
  );
  return place;
}

function eventRow(event) {
  const at = timeOf(event.at);
  const when = h("time", { datetime: new Date(at).toISOString(), title: new Date(at).toLocaleString() });
  follow(when, () => moment(at, live.now()));
  const what = h("span", {}, h("strong", {}, event.kind), " ", named("span", event.text));
  const element = h("li", { "data-kind": event.kind }, what, when);
  return { element, update() {} };
}
