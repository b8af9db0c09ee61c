/** The task list: what needs the user first, then what is at work, then what is over, each the last changed first. */

import { Emitter } from "../emitter.js";
import { OUTCOMES } from "../task/states.js";

/** @typedef {import("../protocol.js").TaskSummary} TaskSummary */
/** @typedef {import("../protocol.js").AnyServerFrame} ServerFrame */
/** @typedef {import("./api.js").Api} Api */
/** @typedef {{needsYou: TaskSummary[], atWork: TaskSummary[], over: TaskSummary[]}} Groups */

const PAGE = 50;

/** @param {Iterable<TaskSummary>} tasks @returns {Groups} */
export function grouped(tasks) {
  const sorted = [...tasks].sort((a, b) => (a.updated_at < b.updated_at ? 1 : a.updated_at > b.updated_at ? -1 : 0));
  return {
    needsYou: sorted.filter((task) => task.state === "waiting"),
    atWork: sorted.filter((task) => task.state !== "waiting" && !OUTCOMES.has(task.state)),
    over: sorted.filter((task) => OUTCOMES.has(task.state)),
  };
}

export class TaskList {
  /** @type {Emitter<void>} */
  changed = new Emitter();
  /** Whether the server has sent the list, now or when it was kept. */
  known = false;
  /** Whether there are older ones. */
  more = false;
  /** @type {Map<string, TaskSummary>} */
  #tasks = new Map();
  #api;
  #loading = false;

  /** @param {Api} api */
  constructor(api) {
    this.#api = api;
  }

  /** @returns {Groups} */
  get groups() {
    return grouped(this.#tasks.values());
  }

  /** @param {string} id */
  get(id) {
    return this.#tasks.get(id);
  }

  /** What to keep for the next start. */
  get newest() {
    const { needsYou, atWork, over } = this.groups;
    return [...needsYou, ...atWork, ...over].slice(0, PAGE);
  }

  /** What was kept, until the server says how it is now. @param {TaskSummary[]} tasks */
  restore(tasks) {
    for (const task of tasks) this.#tasks.set(task.id, task);
    this.known = true;
  }

  /** @param {ServerFrame} frame */
  take(frame) {
    if (frame.type === "tasks") this.#whole(frame.tasks ?? [], frame.more ?? false);
    else if (frame.type === "task_line") this.#tasks.set(frame.task.id, frame.task);
    else return;
    this.changed.emit();
  }

  /**
   * The newest ones whole; older ones that were loaded before stay.
   * @param {TaskSummary[]} tasks
   * @param {boolean} more
   */
  #whole(tasks, more) {
    const had = this.#tasks.size > tasks.length && this.known;
    for (const task of tasks) this.#tasks.set(task.id, task);
    this.more = had ? this.more || more : more;
    this.known = true;
  }

  /** Load older ones. Raises Problem. */
  async loadMore() {
    if (this.#loading || !this.more) return;
    this.#loading = true;
    try {
      const oldest = [...this.#tasks.values()].reduce((a, b) => (a.updated_at < b.updated_at ? a : b));
      const found = await this.#api.get(`/api/tasks/?limit=${PAGE}&before=${oldest.id}`);
      for (const task of found.tasks) if (!this.#tasks.has(task.id)) this.#tasks.set(task.id, task);
      this.more = found.more;
      this.changed.emit();
    } finally {
      this.#loading = false;
    }
  }
}
