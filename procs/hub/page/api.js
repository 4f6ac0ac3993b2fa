/** REST of the hub: each call has a deadline, and each error says in words what to do next. */

const DEADLINE_MS = 15_000;

/** Why a call did not work. `status` is 0 where the hub did not answer at all. */
export class Failure extends Error {
  constructor(message, status = 0, retryS = 0) {
    super(message);
    this.status = status;
    this.retryS = retryS;
  }
}

/** Dispatches "doubt" when a call is refused for want of a session. It may also be a wrong password in its body, so
 * whoever hears this asks for the session. */
export const doubts = new EventTarget();

/** The JSON that the hub answers. Raises Failure. */
export async function call(method, path, body, { signal, deadlineMs = DEADLINE_MS } = {}) {
  const response = await answerTo(method, path, body, signal, deadlineMs);
  const said = await saidIn(response);
  if (!response.ok) throw failed(path, response, said);
  return said;
}

/** What is no JSON, as a Blob, with the headers that came with it. Raises Failure. */
export async function download(path, { signal, deadlineMs = DEADLINE_MS } = {}) {
  const response = await answerTo("GET", path, undefined, signal, deadlineMs);
  if (!response.ok) throw failed(path, response, await saidIn(response));
  return { blob: await read(response.blob()), headers: response.headers };
}

async function saidIn(response) {
  const type = response.headers.get("Content-Type") ?? "";
  return type.startsWith("application/json") ? await read(response.json()) : {};
}

async function answerTo(method, path, body, signal, deadlineMs) {
  const deadline = AbortSignal.timeout(deadlineMs);
  const init = { method, signal: signal ? AbortSignal.any([signal, deadline]) : deadline, cache: "no-cache" };
  if (body !== undefined) {
    init.headers = { "Content-Type": "application/json" };
    init.body = JSON.stringify(body);
  }
  try {
    return await fetch(path, init);
  } catch (error) {
    throw unanswered(error, method);
  }
}

/** A body may break off as the connection may. */
async function read(body) {
  try {
    return await body;
  } catch (error) {
    throw unanswered(error, "GET");
  }
}

/** Whoever left the view wants no word of it; the others hear whether it is safe to ask again. */
function unanswered(error, method) {
  if (error.name === "AbortError") return error;
  const advice = method === "POST" ? "Look whether it was done before you try again." : "Try again in a moment.";
  return new Failure(`The hub did not answer. ${advice}`);
}

function failed(path, response, said) {
  if (response.status === 401 && path !== "/api/session") doubts.dispatchEvent(new Event("doubt"));
  const retryS = Number(response.headers.get("Retry-After")) || 0;
  const reason = said.detail ?? `The hub answered ${response.status} ${response.statusText}`;
  const advice = retryS ? ` (in ${retryS} s)` : "";
  return new Failure(`${reason}${advice}`, response.status, retryS);
}

/** The path of a device's part of the REST, from names as they are. */
export function deviceCall(deviceId, ...names) {
  return ["/api/devices", deviceId, ...names].map((part, at) => (at ? encodeURIComponent(part) : part)).join("/");
}
