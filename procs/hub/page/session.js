/** Who is signed in, by a cookie that no script can read. */

import { call } from "./api.js";

let current = null;

/** {user, version, views}, or null for nobody. */
export function session() {
  return current;
}

/** Ask the hub who is signed in. Raises Failure where it can't be asked. */
export async function check() {
  try {
    current = await call("GET", "/api/session");
  } catch (error) {
    if (error.status !== 401) throw error;
    current = null;
  }
  return current;
}

/** Raises Failure. */
export async function signIn(username, password) {
  await call("POST", "/api/session", { username, password });
  return check();
}

/** Raises Failure; then one still is signed in. */
export async function signOut() {
  await call("DELETE", "/api/session");
  current = null;
}
