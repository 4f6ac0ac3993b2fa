/** Times, states and sizes in words. Pure: whoever calls says what time it is, in milliseconds. */

const MINUTE_S = 60;
const HOUR_S = 60 * MINUTE_S;
const DAY_S = 24 * HOUR_S;
const WEEKDAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** A time as the hub writes it, in milliseconds: ISO 8601 in UTC, with or without its Z. NaN for anything else. */
export function timeOf(text) {
  const hasZone = /(?:Z|[+-]\d\d:\d\d)$/.test(text);
  return Date.parse(hasZone ? text : `${text}Z`);
}

/** What somebody else says, as a sentence: "no such stream" is "No such stream." */
export function sentence(text) {
  const whole = text.trim();
  return whole && whole[0].toUpperCase() + whole.slice(1) + (/[.!?…]$/.test(whole) ? "" : ".");
}

/** "1 device", "2 devices". */
export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** Why a name would be refused; empty for one that would not. The hub counts characters, as `maxlength` does not. */
export function nameFault(name, longest) {
  if (!name) return "type something other than blanks";
  const { length } = [...name];
  return length > longest ? `these are ${length} characters; shorten it to ${longest}` : "";
}

/** For how long, as exactly as anybody cares: "42 s", "3 min", "2 h 5 min", "3 days". */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE_S) return `${whole} s`;
  if (whole < HOUR_S) return `${Math.floor(whole / MINUTE_S)} min`;
  if (whole >= DAY_S) return count(Math.floor(whole / DAY_S), "day");
  const hours = Math.floor(whole / HOUR_S);
  const minutes = Math.floor((whole % HOUR_S) / MINUTE_S);
  return minutes && hours < 10 ? `${hours} h ${minutes} min` : `${hours} h`;
}

/** When, in local time: "18:02", "yesterday 18:02", "Monday 18:02", "3 Nov 18:02", "3 Nov 2024". */
export function moment(at, now) {
  const then = new Date(at);
  const today = new Date(now);
  const clock = `${twoDigits(then.getHours())}:${twoDigits(then.getMinutes())}`;
  const days = Math.round((midnight(today) - midnight(then)) / (1000 * DAY_S));
  if (days === 0) return clock;
  if (days === 1) return `yesterday ${clock}`;
  if (days > 1 && days < 7) return `${WEEKDAYS[then.getDay()]} ${clock}`;
  const date = `${then.getDate()} ${MONTHS[then.getMonth()]}`;
  return then.getFullYear() === today.getFullYear() ? `${date} ${clock}` : `${date} ${then.getFullYear()}`;
}

/** Calendar days, whatever the clocks did in between: a day with a change of clocks has 23 or 25 hours. */
function midnight(date) {
  return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
}

function twoDigits(number) {
  return String(number).padStart(2, "0");
}

/** How a device is: "online for 3 min", "offline since yesterday 18:02", "never seen". */
export function deviceState(device, now) {
  if (device.state === "online") {
    const since = timeOf(device.connected_at);
    return Number.isNaN(since) ? "online" : `online for ${span((now - since) / 1000)}`;
  }
  const seen = timeOf(device.last_seen);
  return device.state === "offline" && !Number.isNaN(seen) ? `offline since ${moment(seen, now)}` : device.state;
}

/** "2 of 5 streams running", "5 streams", "no streams". */
export function streams(all) {
  if (!all.length) return "no streams";
  const running = all.filter((stream) => stream.is_running).length;
  return running ? `${running} of ${count(all.length, "stream")} running` : count(all.length, "stream");
}

/** How a stream is: "2 watching", "running", "idle". */
export function streamState(stream) {
  if (stream.watchers) return `${stream.watchers} watching`;
  return stream.is_running ? "running" : "idle";
}

/** Memory: "640 kB", "12 MB", "1.2 GB". */
export function bytes(number) {
  if (number < 1e6) return `${Math.round(number / 1e3)} kB`;
  return number < 1e9 ? `${Math.round(number / 1e6)} MB` : `${(number / 1e9).toFixed(1)} GB`;
}

/** How much comes: "640 kbit/s", "2.1 Mbit/s". */
export function rate(bitsPerS) {
  return bitsPerS < 1e6 ? `${Math.round(bitsPerS / 1e3)} kbit/s` : `${(bitsPerS / 1e6).toFixed(1)} Mbit/s`;
}

/** "0 %", "2.5 %", "34 %". */
export function percent(share) {
  const digits = share > 0 && share < 0.1 ? 1 : 0;
  return `${(100 * share).toFixed(digits)} %`;
}

/** A short time: "240 ms", "1.2 s", "34 s". */
export function shortly(milliseconds) {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  return milliseconds < 10_000 ? `${(milliseconds / 1000).toFixed(1)} s` : span(milliseconds / 1000);
}

const PROCESS_STATES = {
  __proto__: null, // devices say what they like
  SERVING: ["serving", "good"],
  RUNNING: ["running", "good"],
  STARTING: ["starting", "waits"],
  HANGING: ["hangs", "bad"],
  BACKOFF: ["failed", "bad"],
  FATAL: ["failed", "bad"],
  EXITED: ["ended", "waits"],
  STOPPING: ["stopping", "waits"],
  STOPPED: ["stopped by somebody", "idle"],
};

/** How a process is, {text, tone}; tone is good, waits, bad or idle. A state that we do not know stays as told. */
export function processState(process) {
  const [word, tone] = PROCESS_STATES[process.state] ?? [process.state.toLowerCase(), "idle"];
  return { text: process.wait_s > 0 ? `${word}, again in ${span(Math.ceil(process.wait_s))}` : word, tone };
}

const LOSSES = {
  __proto__: null,
  go2rtc: "Viewers are cut off for a moment.",
  hub: "Everybody reconnects.",
  audio_io: "What it was about to say is not heard.",
  proxy: "What it carries breaks off for a moment.",
  supervisord: "All processes restart.",
  voice: "What is being said breaks off.",
};

/** What others lose when a process is killed. */
export function loss(process) {
  return LOSSES[process.split(":")[0]] ?? "Nothing is lost.";
}

const CAPABILITIES = {
  __proto__: null,
  challenge: "proves its identity",
  mux1: "live tunnel",
  suite: "tells of its processes",
};

/** What a device can do, with the word of the protocol. */
export function capability(cap) {
  return CAPABILITIES[cap] ? `${CAPABILITIES[cap]} (${cap})` : cap;
}

/** How soon a process was back, over all its restarts that are remembered; and what the bars of a histogram are. */
export function recovery({ bounds_s = [], counts = [], p50_ms, worst_ms }) {
  const times = counts.reduce((sum, one) => sum + one, 0);
  if (!times) return "no restart remembered";
  const facts = [`back ${count(times, "time")}`];
  if (p50_ms != null) facts.push(`half within ${shortly(p50_ms)}`);
  if (worst_ms != null) facts.push(`worst ${shortly(worst_ms)}`);
  const [least, most] = [bounds_s[0], bounds_s.at(-1)].map((bound) => shortly(1000 * bound));
  const scale = bounds_s.length ? `; bars from under ${least} to over ${most}` : "";
  return facts.join(", ") + scale;
}
