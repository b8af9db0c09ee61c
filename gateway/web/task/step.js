/** A tool call as one line that opens: what was run, and what came of it. */

import { fill, h, say } from "../dom.js";
import { icon, ring } from "../parts/icons.js";
import { diffLines } from "../parts/lines.js";
import { colour, output } from "../parts/output.js";
import { clean, tail } from "../text/clean.js";
import { clock } from "../text/units.js";
import { EDIT_TOOL, text } from "./calls.js";
import { changedLines } from "./edits.js";

/** @typedef {import("./fold.js").Used} Used */

const TAIL_LINES = 6;
const QUIET = new Set(["finish", "ask_user", "todo"]);
/** The outcome, the card and the plan say it. */

/** @param {Used} item */
export function isQuiet(item) {
  return QUIET.has(item.name) && item.mark !== "failed";
}

export class Step {
  node;
  /** @type {Used} */
  #item;
  #sign = h("span", { class: "step-sign" });
  #what = h("span", { class: "step-what" });
  #note = h("span", { class: "step-note" });
  #tail = h("pre", { class: "out tail", hidden: true });
  #body = h("div", { class: "step-body" });
  #details;

  /** @param {Used} item */
  constructor(item) {
    this.#item = item;
    const summary = h("summary", {}, this.#sign, this.#what, this.#note);
    this.#details = h("details", { class: "step", on: { toggle: () => this.#open() } }, summary, this.#body);
    this.node = h("div", { class: "step-box" }, this.#details, this.#tail);
    this.show(item);
  }

  /** @param {Used} item */
  show(item) {
    this.#item = item;
    this.node.hidden = isQuiet(item);
    this.node.dataset.mark = item.running ? "running" : item.mark;
    fill(this.#sign, item.running ? ring() : icon(item.mark), h("span", { class: "unseen" }, item.running ? "running" : item.mark));
    say(this.#what, item.what);
    this.tick(Date.now());
    this.#tail.hidden = !item.running || !item.text.trim() || this.#details.open;
    if (!this.#tail.hidden) colour(this.#tail, tail(item.text, TAIL_LINES));
    if (this.#details.open) this.#open();
  }

  /** @param {number} now */
  tick(now) {
    const { running, at, note } = this.#item;
    say(this.#note, running ? clock((now - Date.parse(at)) / 1000) : note);
  }

  #open() {
    this.#tail.hidden = this.#details.open || !this.#item.running || !this.#item.text.trim();
    if (this.#details.open) fill(this.#body, ...body(this.#item));
  }
}

/**
 * @param {Used} item
 * @returns {Node[]}
 */
function body(item) {
  const asked = request(item);
  const answer = item.text.trim() ? output(item.text) : h("p", { class: "dim" }, item.running ? "Nothing printed yet." : "It printed nothing.");
  const dropped = item.dropped ? [h("p", { class: "dim" }, `${item.dropped} bytes in its middle were left out.`)] : [];
  const said = item.name === EDIT_TOOL && item.mark === "ok" && asked ? [] : [answer, ...dropped];
  return asked ? [asked, ...said] : said;
}

/** @param {Used} item @returns {HTMLElement | null} */
function request(item) {
  if (item.name === "bash") return h("pre", { class: "command", tabindex: 0 }, clean(text(item.input, "command")));
  if (item.name !== EDIT_TOOL) return null;
  const lines = changedLines(item.input);
  return lines.length ? h("div", { class: "scrolls", tabindex: 0 }, diffLines(lines)) : null;
}
