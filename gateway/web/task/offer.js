/** What one tap does to a task that stands still: let a paused one go on, try again what failed or was cancelled. */

import { fill, h } from "../dom.js";
import { icon } from "../parts/icons.js";
import { toast } from "../parts/toast.js";

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
  /** @type {Offered | undefined} */
  #offered;

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
    this.node.hidden = !offered || isSent;
    if (offered === this.#offered) return;
    this.#offered = offered;
    fill(this.node, offered ? h("button", { class: "button quiet", on: { click: () => void this.#send(offered.type) } }, icon(offered.sign), offered.text) : null);
  }

  /** @param {Offered["type"]} type */
  async #send(type) {
    await this.#session.outbox.add({ type, task: this.#task }).catch((error) => toast(error.message));
  }
}
