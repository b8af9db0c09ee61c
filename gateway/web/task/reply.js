/** What the model says: as it is being said, then as it was. */

import { fill, h, say } from "../dom.js";
import { icon } from "../parts/icons.js";
import { clean } from "../text/clean.js";
import { markdown } from "../text/markdown.js";
import { seconds } from "../text/units.js";

/** @typedef {import("./fold.js").Reply} Reply */

export class ReplyBox {
  node = h("div", { class: "reply" });
  /** @type {Reply} */
  #item;
  #thought = h("details", { class: "thought", hidden: true });
  #thoughtTitle = h("summary");
  #thoughtText = h("div", { class: "thought-text", dir: "auto" });
  #text = h("div", { class: "prose", dir: "auto" });
  #now = h("p", { class: "thinking" });
  #lost = h("p", { class: "note warning", hidden: true });
  #shown = "";

  /** @param {Reply} item */
  constructor(item) {
    this.#item = item;
    this.#thought.append(this.#thoughtTitle, this.#thoughtText);
    this.#thought.addEventListener("toggle", () => this.#showThought());
    this.node.append(this.#thought, this.#text, this.#now, this.#lost);
    this.show(item);
  }

  /** @param {Reply} item */
  show(item) {
    this.#item = item;
    this.#thought.hidden = !item.thinking.trim();
    say(this.#thoughtTitle, item.running ? "Thinking" : item.seconds < 1 ? "Thought" : `Thought for ${seconds(item.seconds)}`);
    this.#showThought();
    this.#showText(item);
    this.#now.hidden = !item.running;
    say(this.#now, item.writing ? "Writing a step…" : item.text ? "" : "Thinking…");
    this.#lost.hidden = !item.lost;
    if (item.lost) fill(this.#lost, icon("unknown"), `No answer from the model: ${item.lost}`);
    this.node.hidden = !item.running && !item.text && !item.thinking.trim() && !item.lost;
  }

  #showThought() {
    if (this.#thought.open) say(this.#thoughtText, clean(this.#item.thinking));
  }

  /** @param {Reply} item */
  #showText({ text }) {
    if (text === this.#shown) return;
    this.#shown = text;
    fill(this.#text, markdown(text));
  }
}
