/** The devices that this user can see, as the hub tells them. */

import { asKnown, live } from "./live.js";
import { deviceState } from "./words.js";

/** The order in which devices are shown: who is there first, then by name. */
export function inOrder(one, other) {
  const areThere = (other.state === "online") - (one.state === "online");
  return areThere || one.device_name.localeCompare(other.device_name) || (one.device_id < other.device_id ? -1 : 1);
}

/** Whether a device is meant by what was typed: each word is in its name, its id or the name of one of its streams. */
export function isMeant(device, query) {
  const texts = [device.device_name, device.device_id, ...device.streams.map((stream) => stream.name)];
  const inLowerCase = texts.map((text) => text.toLowerCase());
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return words.every((word) => inLowerCase.some((text) => text.includes(word)));
}

/** How a device is, in words, for as long as that is known. */
export function stateNow(device) {
  return live.isAway ? asKnown(device.state) : deviceState(device, live.now());
}

/** The stream that stands for a device: one that runs costs nothing more to look at. */
export function mainStream(device) {
  return device.streams.find((stream) => stream.is_running) ?? device.streams[0];
}

/** Dispatches "change" when anything of any device is other than before. A device that has not changed stays the same
 * object. */
class Fleet extends EventTarget {
  isKnown = false;
  #devices = new Map();

  constructor() {
    super();
    live.addEventListener("devices", ({ detail }) => this.#replace(detail.devices));
    live.addEventListener("device_changed", ({ detail }) => this.#set(detail.device));
    live.addEventListener("device_gone", ({ detail }) => this.#drop(detail.device_id));
  }

  get(deviceId) {
    return this.#devices.get(deviceId);
  }

  all() {
    return [...this.#devices.values()];
  }

  /** Whoever signs in next may see others. */
  forget() {
    this.#devices.clear();
    this.isKnown = false;
  }

  #replace(devices) {
    this.#devices = new Map(devices.map((device) => [device.device_id, device]));
    this.isKnown = true;
    this.dispatchEvent(new Event("change"));
  }

  #set(device) {
    this.#devices.set(device.device_id, device);
    this.dispatchEvent(new Event("change"));
  }

  #drop(deviceId) {
    if (this.#devices.delete(deviceId)) this.dispatchEvent(new Event("change"));
  }
}

export const fleet = new Fleet();
