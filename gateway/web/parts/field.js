/** A labelled input, with what is wrong with it below. */

import { attribute, h, say } from "../dom.js";

/** @typedef {HTMLInputElement | HTMLTextAreaElement} Input */

export class Field {
  node;
  input;
  #wrong;

  /**
   * @param {string} name
   * @param {string} label
   * @param {Input} input
   * @param {string} [hint]
   */
  constructor(name, label, input, hint = "") {
    input.id = `field-${name}`;
    input.name = name;
    this.input = input;
    this.#wrong = h("p", { class: "wrong", id: `wrong-${name}`, role: "alert" });
    const told = hint ? h("p", { class: "hint", id: `hint-${name}` }, hint) : null;
    attribute(input, "aria-describedby", `${told ? `hint-${name} ` : ""}wrong-${name}`);
    this.node = h("div", { class: "field" }, h("label", { for: input.id }, label), input, told, this.#wrong);
    input.addEventListener("input", () => this.complain(""));
  }

  get value() {
    return this.input.value;
  }

  /** @param {string} text "" takes it back */
  complain(text) {
    say(this.#wrong, text);
    attribute(this.input, "aria-invalid", text ? "true" : null);
  }
}

/**
 * @param {string | undefined} value
 * @param {string} placeholder
 */
export function plain(value, placeholder) {
  return h("input", { type: "text", autocapitalize: "off", autocomplete: "off", spellcheck: "false", value: value ?? "", placeholder });
}

/**
 * @param {number | null | undefined} value
 * @param {string} step
 */
export function number(value, step) {
  return h("input", { type: "number", min: 0, step, inputmode: "decimal", value: value ?? "" });
}

/** Grow with what is written. @param {HTMLTextAreaElement} area */
export function growing(area) {
  const grow = () => {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight + 2}px`;
  };
  area.addEventListener("input", grow);
  requestAnimationFrame(grow);
  return area;
}
