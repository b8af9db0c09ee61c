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

/** Where the page after `last` begins, also where that one changes before it is asked for. @param {TaskSummary} [last] */
function place(last) {
  return last ? `&before=${last.id}&before_at=${encodeURIComponent(last.updated_at)}` : "";
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
  /** The last one that was loaded; older ones follow from there, also those that changed while nobody listened. */
  #before = "";

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
   * The newest ones; older ones that were loaded before stay until they are loaded again.
   * @param {TaskSummary[]} tasks
   * @param {boolean} more
   */
  #whole(tasks, more) {
    for (const task of tasks) this.#tasks.set(task.id, task);
    this.known = true;
    this.more = more;
    this.#before = place(tasks.at(-1));
  }

  /** Whether what is known is newer than this. @param {TaskSummary} task */
  #isNewer(task) {
    return (this.#tasks.get(task.id)?.updated_at ?? "") > task.updated_at;
  }

  /** Load older ones. Raises Problem. */
  async loadMore() {
    if (this.#loading || !this.more) return;
    this.#loading = true;
    try {
      const found = await this.#api.get(`/api/tasks/?limit=${PAGE}${this.#before}`);
      for (const task of found.tasks) if (!this.#isNewer(task)) this.#tasks.set(task.id, task);
      this.#before = place(found.tasks.at(-1)) || this.#before;
      this.more = found.more && found.tasks.length > 0;
      this.changed.emit();
    } finally {
      this.#loading = false;
    }
  }
}
