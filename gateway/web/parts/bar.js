/** The top of a screen: the way back, the title, and what can be done there. */

import { h } from "../dom.js";
import { icon } from "./icons.js";

/**
 * @param {object} given
 * @param {string} given.title
 * @param {string} [given.back] where the way back leads
 * @param {Node} [given.below] a quiet line under the title
 * @param {Node[]} [given.actions]
 */
export function bar({ title, back, below, actions = [] }) {
  const heading = h("h1", { class: back ? "title" : "title big", dir: "auto" }, title);
  return h(
    "header",
    { class: "bar" },
    back ? h("a", { class: "round", href: back, "aria-label": "Back", "data-back": true }, icon("back")) : null,
    below ? h("div", { class: "head" }, heading, below) : heading,
    ...actions,
  );
}
