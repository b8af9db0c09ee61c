/** A signed-in device: its connection, its outbox, the task list and the tasks that are looked at. */

import { Emitter } from "../emitter.js";
import { TaskLog } from "../task/log.js";
import { isKnownToServer } from "./account.js";
import { Api } from "./api.js";
import { Connection } from "./connection.js";
import { Outbox } from "./outbox.js";
import { TaskList } from "./tasks.js";

/** @typedef {import("../protocol.js").AnyServerFrame} ServerFrame */
/** @typedef {import("../protocol.js").Me} Me */
/** @typedef {import("./account.js").Account} Account */
/** @typedef {import("./connection.js").State} State */
/** @typedef {import("./database.js").Database} Database */

const LIST_LINES = 30;
const LOGS_LIMIT = 8;
/** Tasks in memory. */
const KEPT_TASKS_LIMIT = 30;
/** Tasks whose events stay on this device. */

export class Session {
  /** @type {Emitter<State>} */
  stateChanged = new Emitter();
  /** @type {Emitter<void>} */
  noticesChanged = new Emitter();
  /** The server signed this device out. @type {Emitter<void>} */
  signedOut = new Emitter();
  /** Sentences to show on every screen. @type {string[]} */
  notices = [];
  /** How far the list was pushed up when it was left. */
  listScroll = 0;
  account;
  api;
  database;
  outbox;
  list;
  /** The least recently used first. @type {Map<string, TaskLog>} */
  #logs = new Map();
  /** @type {Set<string>} */
  #watched = new Set();
  #connection;

  /**
   * @param {Database} database
   * @param {Account} account
   */
  constructor(database, account) {
    this.database = database;
    this.account = account;
    this.api = new Api(account.token);
    this.list = new TaskList(this.api);
    this.#connection = new Connection(account.token, {
      frame: (frame) => this.#take(frame),
      state: (state) => this.stateChanged.emit(state),
      turnedAway: () => void this.#askWhetherSignedOut(),
    });
    this.outbox = new Outbox(database, (frame) => this.#connection.send(frame));
  }

  get state() {
    return this.#connection.state;
  }

  async start() {
    await this.outbox.load();
    const kept = await this.database.get("kept", "list");
    if (kept) this.list.restore(kept);
    this.notices = (await this.database.get("kept", "notices")) ?? [];
    document.addEventListener("visibilitychange", this.#tellLooking);
    this.#connection.start();
  }

  stop() {
    document.removeEventListener("visibilitychange", this.#tellLooking);
    this.#connection.stop();
  }

  /**
   * Follow a task until `leave`.
   * @param {string} task
   * @returns {Promise<TaskLog>}
   */
  async watch(task) {
    this.#watched.add(task);
    const log = this.#logs.get(task) ?? new TaskLog(task, this.database, () => this.#watchAgain(task));
    if (!this.#logs.has(task)) await log.restore();
    this.#logs.delete(task);
    this.#logs.set(task, log);
    this.#forgetOldLogs();
    this.#sendWatch(log);
    void this.#rememberSeen(task);
    return log;
  }

  /** @param {string} task */
  leave(task) {
    this.#watched.delete(task);
    this.#connection.send({ type: "unwatch_task", task });
    void this.#logs.get(task)?.keep();
  }

  /** Who we are to the server, with the models it offers: as it says now, else as it said last. @returns {Promise<Me | undefined>} */
  async me() {
    try {
      const me = await this.api.get("/api/me");
      await this.database.put("kept", "me", me);
      return me;
    } catch {
      return this.database.get("kept", "me");
    }
  }

  /** @param {TaskLog} log */
  #sendWatch(log) {
    this.#connection.send({ type: "watch_task", task: log.task, cursor: log.cursor, output: true });
  }

  /** @param {string} task */
  #watchAgain(task) {
    const log = this.#logs.get(task);
    this.#connection.send({ type: "unwatch_task", task });
    if (log) this.#sendWatch(log);
  }

  #forgetOldLogs() {
    for (const [task, log] of this.#logs) {
      if (this.#logs.size <= LOGS_LIMIT) return;
      if (this.#watched.has(task)) continue;
      void log.keep();
      this.#logs.delete(task);
    }
  }

  /** @param {string} task */
  async #rememberSeen(task) {
    /** @type {string[]} */
    const before = (await this.database.get("kept", "seen")) ?? [];
    const seen = [task, ...before.filter((one) => one !== task)];
    for (const old of seen.splice(KEPT_TASKS_LIMIT)) {
      await this.database.remove("events", IDBKeyRange.bound([old, 0], [old, Infinity]));
    }
    await this.database.put("kept", "seen", seen);
  }

  /** @param {ServerFrame} frame */
  #take(frame) {
    this.outbox.take(frame);
    this.list.take(frame);
    if (frame.type === "signed_in") this.#signedIn(frame);
    if (frame.type === "tasks" || frame.type === "task_line") void this.database.put("kept", "list", this.list.newest);
    const task = "task" in frame && typeof frame.task === "string" ? frame.task : "";
    const log = this.#logs.get(task);
    const isOfLog = ["decision_seen", "journal_seen", "output_seen", "caught_up"].includes(frame.type);
    if (log && (isOfLog || (frame.type === "refused" && !frame.key))) log.take(frame);
  }

  /** @param {import("../protocol.js").SignedIn} frame */
  #signedIn(frame) {
    this.notices = [...(frame.notices ?? [])];
    this.noticesChanged.emit();
    void this.database.put("kept", "notices", this.notices);
    this.#tellLooking();
    this.#connection.send({ type: "watch_tasks", limit: LIST_LINES });
    for (const task of this.#watched) {
      const log = this.#logs.get(task);
      if (log) this.#sendWatch(log);
    }
    this.outbox.flush();
  }

  /** No push comes to a device that is looking. */
  #tellLooking = () => {
    this.#connection.send({ type: "looking", looking: document.visibilityState === "visible" });
  };

  async #askWhetherSignedOut() {
    if (!(await isKnownToServer(this.account))) this.signedOut.emit();
  }
}
