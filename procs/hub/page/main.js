/** The page: who is signed in, which view the address names, and whether the hub is there. */

import { doubts } from "./api.js";
import { accountView } from "./account.js";
import { forgetDrafts } from "./controls.js";
import { deviceView } from "./device.js";
import { devicesView } from "./devices.js";
import { announce, entitle, h, setText, tick } from "./dom.js";
import { fleet } from "./fleet.js";
import { icon } from "./icons.js";
import { live, retryDelay } from "./live.js";
import { pairView } from "./pair.js";
import { check, session } from "./session.js";
import { signInView } from "./signin.js";
import { suiteView } from "./suite.js";
import { forgetPictures } from "./thumbs.js";
import { usersView } from "./users.js";
import { voice } from "./voice.js";

/** Each view: (signal, ...what the pattern found) -> {title, content}. What it starts ends with the signal, so that to
 * leave a view needs nothing else. */
const ROUTES = [
  [/^#?\/?$/, devicesView],
  [/^#\/devices\/([^/]+)$/, deviceView],
  [/^#\/suite$/, suiteView],
  [/^#\/voice$/, later("Voice", async () => (await import("./voicedevices.js")).voiceView)],
  [/^#\/voice\/([^/]+)$/, later("Voice", async () => (await import("./voicedevice.js")).voiceDeviceView)],
  [/^#\/pair(?:\/(\d{6}))?$/, pairView],
  [/^#\/account$/, accountView],
  [/^#\/users$/, usersView],
];

const TABS = [
  ["#/", "Devices", "devices"],
  ["#/suite", "Suite", "suite"],
  ["#/voice", "Voice", "voice"],
  ["#/pair", "Pair", "pair"],
  ["#/users", "Users", "users"],
  ["#/account", "Account", "account"],
];

const main = document.getElementById("main");
const banner = document.getElementById("banner");
const tabs = document.getElementById("tabs");
const scrolled = new Map(); // hash -> how far down it was left
let left = new AbortController();
let shownHash = null;
let shownUser = null;
let hasVoice = false; // whether its tab is shown

function show(view, ...found) {
  left.abort();
  left = new AbortController();
  const { title, content } = view(left.signal, ...found);
  entitle(title);
  main.replaceChildren(...[content].flat());
}

/** A view that few people need: its modules come when it is opened first. */
function later(name, load) {
  return (signal, ...found) => {
    const first = h("h1", {}, name);
    const said = h("p", { class: "empty" }, "Loading…");
    const place = h("div", { class: "stack" }, first, said);
    const draw = (view) => {
      if (signal.aborted) return;
      const { title, content } = view(signal, ...found);
      const hadFocus = document.activeElement === first;
      entitle(title);
      place.replaceChildren(...[content].flat());
      if (hadFocus) focusHeading();
    };
    load().then(draw, () => setText(said, "The hub did not answer. Reload the page to try again."));
    return { title: name, content: place };
  };
}

function notFoundView() {
  const content = [h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/" }, "See your devices"))];
  return { title: "No such page", content };
}

/** Show what the address names. `isMove`: somebody went there, whose focus and scroll position follow. */
function route(isMove) {
  if (shownHash !== null) scrolled.set(shownHash, scrollY);
  shownHash = location.hash;
  if (session()) show(...wanted(shownHash));
  else show(signInView, welcome);
  drawTabs();
  if (isMove) scrollTo(0, scrolled.get(shownHash) ?? 0);
  if (isMove) announce("");
  if (!session()) main.querySelector("input").focus();
  else if (isMove) focusHeading();
}

function focusHeading() {
  const heading = main.querySelector("h1");
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

/** The view that a hash names, with what it is about. */
function wanted(hash) {
  for (const [pattern, view] of ROUTES) {
    const found = hash.match(pattern);
    if (found) return [view, ...found.slice(1).map((part) => part && decoded(part))];
  }
  return [notFoundView];
}

/** An address that somebody mistyped names no device, which the view says. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function drawTabs() {
  const user = session()?.user;
  const me = user && h("a", { href: "#/account", dir: "auto" }, user.username);
  document.getElementById("me").replaceChildren(...(me ? [me] : []));
  hasVoice = voice.isThere;
  const isShown = { "#/users": user?.is_admin, "#/voice": user?.is_admin && hasVoice };
  const shown = user ? TABS.filter(([hash]) => isShown[hash] ?? true) : [];
  const here = tabOf(shownHash);
  tabs.replaceChildren(
    ...shown.map(([hash, label, drawing]) =>
      h("a", { href: hash, "aria-current": hash === here ? "page" : null }, icon(drawing), h("span", {}, label)),
    ),
  );
}

/** The tab that a view is below. */
function tabOf(hash) {
  if (hash.startsWith("#/devices/")) return "#/";
  return hash.replace(/^#?\/?$/, "#/").replace(/^(#\/(?:pair|voice))\/.*/, "$1");
}

/** Somebody has signed in: they are where they wanted to be. */
function welcome() {
  if (shownUser !== null && shownUser !== session().user.id) forgetAll();
  shownUser = session().user.id;
  route(true);
  live.start();
}

/** Nobody is signed in. */
function farewell() {
  live.end();
  sayLink();
  route(true);
}

/** What was one user's is not the next one's. */
function forgetAll() {
  forgetDrafts();
  forgetPictures();
  fleet.forget();
  voice.forget();
}

/** Whether the session still is good, now that something was refused; and whether the hub is another one by now. */
async function doubt() {
  const before = session();
  if (!before) return;
  try {
    const now = await check();
    if (!now) farewell();
    else if (now.version !== before.version) sayNewVersion(now.version);
  } catch {
    // The hub can't be asked: live says that it is away.
  }
}

function sayNewVersion(version) {
  const reload = h("button", { type: "button", onclick: () => location.reload() }, "Reload");
  const text = `The hub is version ${version} now; this page is older. `;
  document.getElementById("news").replaceChildren(h("p", {}, text, reload));
}

/** Whether the hub is heard. A browser without a network may still hear a hub on its own machine. */
function sayLink(why = live.isAway ? "The hub is away." : "") {
  const text = navigator.onLine || live.isUp ? why : "You are offline.";
  document.body.classList.toggle("away", live.isAway);
  banner.replaceChildren(...(text ? [h("p", {}, icon("away"), `${text} Trying again…`)] : []));
  tick();
}

async function start() {
  sayLink();
  for (let failures = 0; ; failures++) {
    try {
      await check();
      break;
    } catch {
      sayLink("The hub does not answer.");
      await new Promise((resolve) => {
        setTimeout(resolve, 1000 * retryDelay(failures));
        addEventListener("online", resolve, { once: true });
      });
    }
  }
  sayLink();
  if (session()) {
    shownUser = session().user.id;
    live.start();
  }
  route(false);
}

/** The hash is the address of a view, so that the skip link can't be one of its own. */
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

history.scrollRestoration = "manual";
addEventListener("hashchange", () => route(true));
document.addEventListener("signed-out", () => {
  forgetAll();
  farewell();
});
doubts.addEventListener("doubt", doubt);
live.addEventListener("doubt", doubt);
live.addEventListener("up", () => session()?.user.is_admin && voice.look());
voice.addEventListener("change", () => hasVoice !== voice.isThere && shownHash !== null && drawTabs());
for (const [target, type] of [[live, "away"], [live, "up"], [globalThis, "offline"], [globalThis, "online"]]) {
  target.addEventListener(type, () => sayLink());
}
start();
