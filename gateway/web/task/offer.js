/** What one tap does to a task that stands still: let a paused one go on, try again what failed, start another from it. */

import { fill, h } from "../dom.js";
import { icon } from "../parts/icons.js";
import { toast } from "../parts/toast.js";
import { OUTCOMES } from "./states.js";

/** @typedef {import("../live/session.js").Session} Session */
/** @typedef {import("../protocol.js").TaskState} TaskState */
/** @typedef {{type: "resume" | "retry", text: string, sign: string}} Offered */

/** @type {Partial<Record<TaskState, Offered>>} */
const OFFERS = {
  paused: { type: "resume", text: "Let it go on", sign: "next" },
  failed: { type: "retry", text: "Try again", sign: "again" },
  cancelled: { type: "retry", text: "Try again", sign: "again" },
};

export class Offer {
  node = h("div", { class: "offer", hidden: true });
  #session;
  #task;
  /** @type {TaskState | ""} */
  #state = "";

  /**
   * @param {Session} session
   * @param {string} task
   */
  constructor(session, task) {
    this.#session = session;
    this.#task = task;
  }

  /** @param {TaskState | ""} state "" where there is nothing to offer */
  show(state) {
    const offered = state ? OFFERS[state] : undefined;
    const isSent = this.#session.outbox.of(this.#task).some((entry) => entry.frame.type === offered?.type && entry.state !== "refused");
    const isOver = OUTCOMES.has(state);
    this.node.hidden = isSent || !(offered || isOver);
    if (state === this.#state) return;
    this.#state = state;
    fill(
      this.node,
      offered ? h("button", { class: "button quiet", on: { click: () => void this.#send(offered.type) } }, icon(offered.sign), offered.text) : null,
      isOver ? h("a", { class: "button quiet", href: `#/new?fork=${this.#task}` }, icon("branch"), "Fork") : null,
    );
  }

  /** @param {Offered["type"]} type */
  async #send(type) {
    await this.#session.outbox.add({ type, task: this.#task }).catch((error) => toast(error.message));
  }
}
