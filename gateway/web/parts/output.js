/** What a command printed, with its colours; a long one shows its end first. */

import { append, fill, h } from "../dom.js";
import { pieces } from "../text/ansi.js";
import { many } from "../text/units.js";

const SHOWN_CHARS = 20_000;

/**
 * @param {string} text
 * @returns {HTMLElement}
 */
export function output(text) {
  const shown = h("pre", { class: "out", tabindex: 0 });
  colour(shown, text.slice(-SHOWN_CHARS));
  if (text.length <= SHOWN_CHARS) return shown;
  const all = () => {
    colour(shown, text);
    button.remove();
  };
  const button = h("button", { class: "button small quiet", on: { click: all } }, `Show all ${many(text.length, "character")}`);
  return h("div", {}, button, shown);
}

/**
 * @param {Element} place
 * @param {string} text
 */
export function colour(place, text) {
  fill(place);
  append(
    place,
    pieces(text).map((piece) => (piece.classes.length ? h("span", { class: piece.classes.join(" ") }, piece.text) : piece.text)),
  );
}
