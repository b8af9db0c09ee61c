/** The live socket: signs in, notices when it is dead, and comes back by itself. */

import { waitMs } from "./backoff.js";

/** @typedef {import("../protocol.js").AnyClientFrame} ClientFrame */
/** @typedef {import("../protocol.js").AnyServerFrame} ServerFrame */
/** @typedef {"connecting" | "live" | "broken" | "stopped"} State */
/**
 * @typedef {object} Ears
 * @property {(frame: ServerFrame) => void} frame
 * @property {(state: State) => void} state
 * @property {() => void} turnedAway the server does not want this device back: whether it is signed out must be asked
 */

const OPEN_MS = 10_000;
/** For the connection and the answer to the sign-in. */
const PING_MS = 20_000;
const PONG_MS = 6_000;
const IN_FLIGHT_MS = 1_000;
/** What is heard so soon after a question may have been on its way before the line broke: no answer to it. */
const SETTLED_MS = 5_000;
/** A connection that lived so long was none that the server closes at once. */

export class Connection {
  /** @type {State} */
  state = "stopped";
  #token;
  #ears;
  /** @type {WebSocket | null} */
  #socket = null;
  #tries = 0;
  #liveSince = 0;
  #heardAt = 0;
  #answered = false;
  #timer = 0;

  /**
   * @param {string} token
   * @param {Ears} ears
   */
  constructor(token, ears) {
    this.#token = token;
    this.#ears = ears;
  }

  start() {
    addEventListener("online", this.#wake);
    addEventListener("offline", this.#wake);
    addEventListener("pageshow", this.#wake);
    addEventListener("focus", this.#wake);
    document.addEventListener("visibilitychange", this.#wake);
    this.#open();
  }

  stop() {
    removeEventListener("online", this.#wake);
    removeEventListener("offline", this.#wake);
    removeEventListener("pageshow", this.#wake);
    removeEventListener("focus", this.#wake);
    document.removeEventListener("visibilitychange", this.#wake);
    clearTimeout(this.#timer);
    this.#become("stopped");
    this.#drop();
  }

  /**
   * Whether it could be given to the socket; it may be lost all the same.
   * @param {ClientFrame} frame
   */
  send(frame) {
    if (this.state !== "live" || !this.#socket) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** The phone woke up, or the network is back: a socket that looks alive may be dead. */
  #wake = () => {
    if (document.visibilityState === "hidden" || this.state === "stopped") return;
    if (this.state === "live") this.#ask();
    else if (this.state === "broken") this.#open();
  };

  #open() {
    clearTimeout(this.#timer);
    this.#drop();
    this.#become("connecting");
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/live`);
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#lose(socket), OPEN_MS);
    socket.onopen = () => socket.send(JSON.stringify({ type: "sign_in", token: this.#token }));
    socket.onmessage = (event) => this.#take(socket, JSON.parse(event.data));
    socket.onclose = () => this.#lose(socket);
  }

  /**
   * @param {WebSocket} socket
   * @param {ServerFrame} frame
   */
  #take(socket, frame) {
    if (socket !== this.#socket) return;
    this.#heardAt = Date.now();
    if (frame.type === "pong") this.#answered = true;
    if (frame.type === "signed_in") this.#settle();
    this.#ears.frame(frame);
    if (frame.type !== "closing") return;
    if (frame.come_back === false) this.#ears.turnedAway();
    this.#lose(socket);
  }

  #settle() {
    clearTimeout(this.#timer);
    this.#liveSince = Date.now();
    this.#timer = setTimeout(() => this.#ask(), PING_MS);
    this.#become("live");
  }

  /** Ask for a sign of life; without one the socket is given up. */
  #ask() {
    const socket = this.#socket;
    const asked = Date.now();
    this.#answered = false;
    clearTimeout(this.#timer);
    if (!socket || !this.send({ type: "ping" })) return;
    this.#timer = setTimeout(() => {
      if (!this.#answered && this.#heardAt < asked + IN_FLIGHT_MS) this.#lose(socket);
      else this.#timer = setTimeout(() => this.#ask(), PING_MS);
    }, PONG_MS);
  }

  /** @param {WebSocket} socket */
  #lose(socket) {
    if (socket !== this.#socket || this.state === "stopped") return;
    this.#drop();
    if (this.#liveSince && Date.now() - this.#liveSince > SETTLED_MS) this.#tries = 0;
    this.#liveSince = 0;
    this.#tries += 1;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), waitMs(this.#tries, Math.random()));
    this.#become("broken");
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** @param {State} state */
  #become(state) {
    this.state = state;
    this.#ears.state(state);
  }
}
