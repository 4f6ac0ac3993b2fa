/** What a device has been through, newest first, live. */

import { call, deviceCall } from "./api.js";
import { KeyedList, follow, h, named } from "./dom.js";
import { live } from "./live.js";
import { loaded } from "./loaded.js";
import { moment, timeOf } from "./words.js";

const PAGE = 12;

export function eventList(deviceId, signal) {
  const events = new Map(); // by id; ids grow
  const list = h("ol", { class: "events" });
  const rows = new KeyedList(list, (event) => event.id, eventRow);
  const onclick = () => fetchOlder();
  const older = h("button", { type: "button", class: "quiet", hidden: true, onclick }, "Show older");
  const place = h("div", {});
  const path = deviceCall(deviceId, "events");
  const add = (more) => {
    for (const event of more) if (!events.has(event.id)) events.set(event.id, event);
    rows.show([...events.values()].sort((one, other) => other.id - one.id));
  };
  const fetchOlder = async () => {
    const before = Math.min(...events.keys());
    const told = await call("GET", `${path}?limit=${PAGE}&before=${before}`, undefined, { signal });
    add(told.events);
    older.hidden = !told.more;
  };
  const show = (told) => {
    const isGap = told.more && !told.events.some((event) => events.has(event.id));
    if (isGap) events.clear(); // more has happened meanwhile than was fetched
    if (isGap || !events.size) older.hidden = !told.more;
    add(told.events);
    place.replaceChildren(events.size ? list : h("p", { class: "empty" }, "Nothing has happened yet."), older);
  };
  live.want({ events: [deviceId] }, signal);
  loaded(place, () => call("GET", `${path}?limit=${PAGE}`, undefined, { signal }), show, signal);
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
