/** Line drawings of 24 x 24. They only decorate: the words beside them say what is meant. */

import { svg } from "./dom.js";

const PATHS = {
  devices: "M4 6h11a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H4a2 2 0 0 1-2-2V8a2 2 0 0 1 2-2zM17 11l5-3v8l-5-3",
  suite: "M3 12h4l3-8 4 16 3-8h4",
  pair: "M12 5v14M5 12h14",
  users: "M9 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM2 21v-1a7 7 0 0 1 14 0v1M16 3.5a4 4 0 0 1 0 7.5M18.5 14.5A7 7 0 0 1 22 21",
  account: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 21v-1a8 8 0 0 1 16 0v1",
  voice: "M4 5h16v11H10l-5 4v-4H4z",
  play: "M7 4l13 8-13 8z",
  stop: "M6 6h12v12H6z",
  camera: "M3 8h4l2-3h6l2 3h4v11H3zM12 17a4 4 0 1 0 0-8 4 4 0 0 0 0 8z",
  floating: "M3 5h18v7M11 19H3V5M14 15h7v5h-7z",
  talk: "M12 15a3 3 0 0 0 3-3V6a3 3 0 0 0-6 0v6a3 3 0 0 0 3 3zM5 11a7 7 0 0 0 14 0M12 18v3",
  full: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  back: "M15 5l-7 7 7 7",
  away: "M3 3l18 18M8 6h7a2 2 0 0 1 2 2v3l5-3v8M4 6a2 2 0 0 0-2 2v8a2 2 0 0 0 2 2h11a2 2 0 0 0 1.7-1",
};

export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
}
