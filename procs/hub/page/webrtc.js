/** One watch session: asked for by the viewer's WebSocket, its picture straight from the device or through a relay. */

import { h } from "./dom.js";
import { live } from "./live.js";

const FIRST = "video/H264"; // what cameras speak: a device that has to choose need not encode anew

export class Session {
  #id = "";
  #media = new MediaStream();
  #connection = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  #voice; // what the viewer says goes out there
  #early = []; // candidates that came before the answer
  #over = new AbortController();
  #screen = new AbortController(); // of the video that shows it
  #on;
  #isOver = false; // what it has brought about may play on for a while
  #hasPicture = false;

  static isPossible = "RTCPeerConnection" in globalThis;

  /** A video without sound and controls, for pictures that nobody needs to see yet. */
  static probe() {
    const video = h("video", { playsinline: true });
    video.muted = true;
    return video;
  }

  /** Shows the picture in `video`. Calls `connected()` when there is a way, `picture()` when the first picture is there,
   * `lost(why)` once when it is over. */
  constructor(deviceId, stream, video, on) {
    this.#on = on;
    this.#connection.addEventListener("track", ({ track }) => this.#media.addTrack(track));
    this.#connection.addEventListener("connectionstatechange", () => this.#look());
    this.#connection.addEventListener("icecandidate", ({ candidate }) => this.#tell(candidate));
    for (const type of ["signal_answer", "signal_ice", "watch_ended"]) this.#hear(type);
    live.addEventListener("up", () => this.#resume(), { signal: this.#over.signal });
    this.show(video);
    this.#begin(deviceId, stream).catch((error) => this.#lost(error.message));
  }

  /** Have the picture in this video from now on; the one before may be shown something else. */
  show(video) {
    this.#screen.abort();
    this.#screen = new AbortController();
    if (video.srcObject === this.#media) return;
    const signal = AbortSignal.any([this.#screen.signal, this.#over.signal]);
    // Sound alone is no picture: its size comes with the first.
    for (const type of ["loadeddata", "resize"]) video.addEventListener(type, () => this.#shows(video), { signal });
    video.srcObject = this.#media;
    video.play().catch(() => {}); // refused where another source comes before a picture does
  }

  #shows(video) {
    if (this.#hasPicture || !video.videoWidth || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    this.#hasPicture = true;
    this.#on.picture();
  }

  /** Leave, and say so. */
  close() {
    if (this.#id) live.say("end_watch", { session_id: this.#id });
    this.#isOver = true;
    this.#over.abort();
    this.#connection.close();
  }

  /** Whether the device has said that it takes what a viewer says. */
  get hears() {
    return this.#voice?.currentDirection === "sendonly";
  }

  /** Have this track of a microphone heard at the device; null for silence. */
  speak(track) {
    if (this.hears) this.#voice.sender.replaceTrack(track).catch(() => {}); // it has just ended
  }

  /** What the browser counts. */
  async report() {
    return [...(await this.#connection.getStats()).values()];
  }

  /** The offer is made while the hub asks the device. */
  async #begin(deviceId, stream) {
    const asked = live.ask("watch_request", { device_id: deviceId, stream });
    preferred(this.#connection.addTransceiver("video", { direction: "recvonly" }));
    this.#connection.addTransceiver("audio", { direction: "recvonly" });
    this.#voice = this.#connection.addTransceiver("audio", { direction: "sendonly" });
    const [ready, offer] = await Promise.all([asked, this.#connection.createOffer()]);
    this.#id = ready.session_id;
    if (this.#over.signal.aborted) {
      live.say("end_watch", { session_id: this.#id });
      return;
    }
    this.#connection.setConfiguration({ ...this.#connection.getConfiguration(), iceServers: ready.ice_servers });
    const gathering = this.#connection.setLocalDescription(offer);
    this.#say("signal_offer", { sdp: { type: "offer", sdp: offer.sdp } });
    await gathering;
  }

  #say(type, payload) {
    live.say(type, { session_id: this.#id, ...payload });
  }

  #tell(candidate) {
    if (candidate?.candidate === "") return; // the end, which the null after it says too
    const { sdpMid, sdpMLineIndex } = candidate ?? {};
    this.#say("signal_ice", { candidate: candidate && { candidate: candidate.candidate, sdpMid, sdpMLineIndex } });
  }

  #hear(type) {
    const take = ({ detail }) => {
      if (!this.#id || detail.session_id !== this.#id) return;
      this.#take(type, detail).catch((error) => this.#lost(error.message));
    };
    live.addEventListener(type, take, { signal: this.#over.signal });
  }

  async #take(type, { sdp, candidate, reason, why }) {
    if (type === "watch_ended") this.#ended(why || `It has ended: ${reason}.`);
    else if (type === "signal_answer") await this.#answered(sdp);
    else if (this.#connection.remoteDescription) await this.#add(candidate);
    else this.#early.push(candidate);
  }

  /** A device that died while it answered may answer twice. */
  async #answered(sdp) {
    if (this.#connection.signalingState !== "have-local-offer") return;
    await this.#connection.setRemoteDescription(sdp);
    for (const { receiver } of this.#connection.getTransceivers()) receiver.jitterBufferTarget = 0;
    for (const candidate of this.#early.splice(0)) await this.#add(candidate);
  }

  /** One that can't be used leaves the others. */
  async #add(candidate) {
    await this.#connection.addIceCandidate(candidate ?? undefined).catch(() => {});
  }

  /** What shows a picture may find its way again. */
  #look() {
    const { connectionState } = this.#connection;
    if (connectionState === "connected") this.#on.connected();
    const isCut = connectionState === "disconnected" && !this.#hasPicture;
    if (isCut || connectionState === "failed") this.#lost("There is no way to the device.");
  }

  /** The WebSocket is back. What was agreed plays on; what was under way has lost a half of it. */
  async #resume() {
    if (!this.#id) return;
    if (!this.#connection.remoteDescription) {
      this.#lost("The hub was away.");
      return;
    }
    try {
      const { ice_servers } = await live.ask("watch_resume", { session_id: this.#id });
      this.#connection.setConfiguration({ ...this.#connection.getConfiguration(), iceServers: ice_servers });
    } catch (error) {
      if (live.isUp) this.#ended(error.message); // or the next return of the hub asks again
    }
  }

  /** The hub knows of it no more. */
  #ended(why) {
    this.#id = "";
    this.#lost(why);
  }

  #lost(why) {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#on.lost(why);
  }
}

/** Put what needs no other encoder first. */
function preferred(transceiver) {
  const { codecs } = RTCRtpReceiver.getCapabilities("video");
  const rank = ({ mimeType }) => mimeType === FIRST;
  transceiver.setCodecPreferences?.(codecs.toSorted((one, other) => rank(other) - rank(one)));
}
