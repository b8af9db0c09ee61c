/** Which model: one of those that the server offers, or another by its name. */

import { fill, h } from "../dom.js";
import { Field, plain } from "./field.js";

/** @typedef {import("../live/session.js").Session} Session */
/** @typedef {import("../protocol.js").Me} Me */

const OTHER = "\0other";

export class ModelChoice {
  field;
  node;
  #select = h("select", { id: "model-choice" });

  /**
   * @param {Session} session
   * @param {string} chosen "" for the default
   * @param {(me: Me) => string} [own] the user's own default; otherwise the server's
   */
  constructor(session, chosen, own = () => "") {
    this.field = new Field("model", "Name of the model", plain(chosen, "As the API calls it"));
    const choice = h("div", { class: "field" }, h("label", { for: "model-choice" }, "Model"), this.#select);
    this.node = h("div", { class: "form" }, choice, this.field.node);
    this.#select.addEventListener("change", () => this.#changed());
    this.#offer([], chosen);
    void session.me().then((me) => me && this.#offer(me.models ?? [], this.value, own(me)));
  }

  /**
   * @param {string[]} models the server's default first
   * @param {string} chosen
   * @param {string} [own]
   */
  #offer(models, chosen, own = "") {
    const first = own || models[0];
    const others = models.filter((name) => name !== first);
    const options = [["", first ? `${first} (the default)` : "The server's default"], ...others.map((name) => [name, name]), [OTHER, "Another…"]];
    fill(this.#select, ...options.map(([value = "", told]) => h("option", { value }, told)));
    this.#select.value = chosen === "" || others.includes(chosen) ? chosen : OTHER;
    this.#changed();
  }

  #changed() {
    this.field.node.hidden = this.#select.value !== OTHER;
  }

  get value() {
    return this.#select.value === OTHER ? this.field.value.trim() : this.#select.value;
  }
}
