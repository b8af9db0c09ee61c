/** One task's events as they come: each once and in order, over every break, and kept for the next look. */

import { Emitter } from "../emitter.js";
import { judge } from "../live/cursor.js";
import { View } from "./fold.js";

/** @typedef {import("../protocol.js").AnyServerFrame} ServerFrame */
/** @typedef {import("../live/cursor.js").Event} Event */
/** @typedef {import("../live/database.js").Database} Database */

export class TaskLog {
  /** @type {Emitter<void>} */
  changed = new Emitter();
  /** The sequence of the last event seen. */
  cursor = 0;
  view;
  /** Why the server does not show it; "" while it does. */
  refused = "";
  /** Where in the database it is kept so far. @type {Event[]} */
  #unkept = [];
  #database;
  #watchAgain;

  /**
   * @param {string} task
   * @param {Database} database
   * @param {() => void} watchAgain from the cursor: an event is missing
   */
  constructor(task, database, watchAgain) {
    this.view = new View(task);
    this.#database = database;
    this.#watchAgain = watchAgain;
  }

  get task() {
    return this.view.id;
  }

  /** What was seen before, from the disk. */
  async restore() {
    const range = IDBKeyRange.bound([this.task, 0], [this.task, Infinity]);
    for (const frame of await this.#database.all("events", range)) this.#event(frame);
    this.#unkept = [];
    if (this.cursor) this.changed.emit();
  }

  /** @param {ServerFrame} frame of this task */
  take(frame) {
    if (frame.type === "refused") this.refused = frame.code === "unavailable" ? "" : frame.reason;
    else if (frame.type === "decision_seen" || frame.type === "journal_seen") this.#event(frame);
    else this.view.take(frame);
    if (frame.type === "caught_up" || this.#unkept.length > 200) void this.keep();
    this.changed.emit();
  }

  /** @param {Event} frame */
  #event(frame) {
    const verdict = judge(this.cursor, frame);
    if (verdict === "gap") this.#watchAgain();
    if (verdict !== "new") return;
    this.cursor = frame.sequence;
    this.#unkept.push(frame);
    this.view.take(frame);
  }

  /** Write what is new to the disk. */
  async keep() {
    const frames = this.#unkept;
    this.#unkept = [];
    if (frames.length) await this.#database.putAll("events", frames.map((frame) => [[this.task, frame.sequence], frame]));
  }
}
