/**
 * What was written here and has no receipt yet. It is on the disk before it is sent, keeps its key, and goes out again
 * over each new connection until the server says how it ended: so it is done once, and never lost.
 */

import { Emitter } from "../emitter.js";
import { newKey } from "./keys.js";

/** @typedef {import("../protocol.js").CommandFrame} Command */
/** A command before it has its key. @typedef {{[T in Command["type"]]: Omit<Extract<Command, {type: T}>, "key">}[Command["type"]]} Written */
/** @typedef {import("../protocol.js").AnyServerFrame} ServerFrame */
/** @typedef {import("../protocol.js").Receipt} Receipt */
/** @typedef {import("./database.js").Database} Database */
/**
 * @typedef {object} Entry
 * @property {Command} frame
 * @property {number} at when it was written, milliseconds
 * @property {"waiting" | "accepted" | "refused"} state accepted: the server has stored it
 * @property {string} task the server's id; "" for a new task that it has not accepted
 * @property {string} reason why it was not done
 * @property {string} field which field is wrong, where it is one
 */

const AGAIN_MS = 2_000;
const FRAME_LIMIT_BYTES = 512 * 1024;
/** The server's: of more it says nothing but no, and would again each time. */
const TEXT_LIMIT_CHARS = 100_000;
const TEXT_LIMIT_BYTES = 300_000;

export class Outbox {
  /** @type {Emitter<Entry | null>} the entry that changed, null for one that was done or dismissed */
  changed = new Emitter();
  /** @type {Map<string, Entry>} by key, in the order of writing */
  #entries = new Map();
  #database;
  #send;

  /**
   * @param {Database} database
   * @param {(frame: Command) => boolean} send whether it could be given to the connection
   */
  constructor(database, send) {
    this.#database = database;
    this.#send = send;
  }

  async load() {
    /** @type {Entry[]} */
    const kept = await this.#database.all("outbox");
    for (const entry of kept.sort((a, b) => a.at - b.at)) this.#entries.set(entry.frame.key, entry);
  }

  /** @returns {Entry[]} */
  get entries() {
    return [...this.#entries.values()];
  }

  /** @param {string} key */
  get(key) {
    return this.#entries.get(key);
  }

  /** @param {string} task @returns {Entry[]} */
  of(task) {
    return this.entries.filter((entry) => entry.task === task && entry.frame.type !== "submit");
  }

  /**
   * Keep it, then send it. Raises Error with a sentence: what is too long never goes out, what cannot be kept neither.
   * @param {Written} written
   * @returns {Promise<Entry>}
   */
  async add(written) {
    const frame = /** @type {Command} */ ({ ...written, key: newKey() });
    checkSize(frame);
    const task = frame.type === "submit" ? "" : frame.task;
    /** @type {Entry} */
    const entry = { frame, at: Date.now(), state: "waiting", task, reason: "", field: "" };
    await this.#keep(entry).catch((error) => {
      this.#entries.delete(frame.key);
      throw new Error(`This device cannot store it, so it was not sent (${error}).`);
    });
    if (!this.#send(frame)) void sendWithoutPage();
    return entry;
  }

  /** Over a new connection: everything that has no receipt. */
  flush() {
    for (const entry of this.entries) if (entry.state !== "refused") this.#send(entry.frame);
  }

  /** @param {string} key */
  async dismiss(key) {
    this.#entries.delete(key);
    await this.#database.remove("outbox", key);
    this.changed.emit(null);
  }

  /** @param {ServerFrame} frame */
  take(frame) {
    if (frame.type === "accepted") this.#accepted(frame.key, frame.task);
    else if (frame.type === "refused" && frame.key) this.#refused(frame);
    else if (frame.type === "receipt_seen") this.#ended(frame.receipt);
    else if (frame.type === "decision_seen" && frame.decision.receipt) this.#ended(frame.decision.receipt);
  }

  /**
   * @param {string} key
   * @param {string} task
   */
  #accepted(key, task) {
    const entry = this.#entries.get(key);
    if (entry?.state === "waiting") void this.#keep({ ...entry, state: "accepted", task });
  }

  /** @param {import("../protocol.js").Refused} frame */
  #refused(frame) {
    const entry = this.#entries.get(frame.key ?? "");
    if (!entry) return;
    if (frame.code === "unavailable") setTimeout(() => this.#again(entry.frame.key), AGAIN_MS);
    else void this.#keep({ ...entry, state: "refused", reason: frame.reason, field: frame.field ?? "" });
  }

  /** @param {string} key */
  #again(key) {
    const entry = this.#entries.get(key);
    if (entry?.state === "waiting") this.#send(entry.frame);
  }

  /** @param {Receipt} receipt */
  #ended(receipt) {
    const entry = this.#entries.get(receipt.key);
    if (!entry) return;
    if (receipt.status === "consumed") void this.dismiss(receipt.key);
    else void this.#keep({ ...entry, state: "refused", reason: receipt.reason || "The server did not do this." });
  }

  /** @param {Entry} entry */
  async #keep(entry) {
    this.#entries.set(entry.frame.key, entry);
    await this.#database.put("outbox", entry.frame.key, entry);
    this.changed.emit(entry);
  }
}

/** Have the service worker send it, should the page be closed before there is a connection; not every browser can. */
async function sendWithoutPage() {
  const registration = /** @type {any} */ (await navigator.serviceWorker?.getRegistration());
  await registration?.sync?.register("outbox").catch(() => undefined);
}

/** @param {Command} frame */
function checkSize(frame) {
  const text = frame.type === "submit" ? frame.prompt : "text" in frame ? frame.text : "";
  const characters = [...text].length;
  if (characters > TEXT_LIMIT_CHARS) throw new Error(`It has ${characters} characters and the limit is ${TEXT_LIMIT_CHARS}: shorten it.`);
  if (bytesOf(text) - '""'.length > TEXT_LIMIT_BYTES) throw new Error(`It has more than ${TEXT_LIMIT_BYTES} bytes: shorten it.`);
  if (bytesOf(frame) > FRAME_LIMIT_BYTES) throw new Error("It is too long to be sent at once: shorten it.");
}

/** @param {unknown} value as it travels */
function bytesOf(value) {
  return new TextEncoder().encode(JSON.stringify(value)).length;
}
