/** Lines of a diff. A long line scrolls inside, with all the others. */

import { h } from "../dom.js";
import { clean } from "../text/clean.js";

/** @typedef {import("../text/diff.js").Line} Line */

const SIGNS = { add: "+", del: "−", same: " ", note: "" };
const WORDS = { add: "added", del: "removed", same: "", note: "" };

/**
 * @param {Line[]} lines
 * @returns {HTMLElement}
 */
export function diffLines(lines) {
  const numbered = lines.some((line) => line.old || line.new);
  return h("div", { class: numbered ? "lines" : "lines bare" }, ...lines.map(one));
}

/**
 * @param {number} added
 * @param {number} deleted
 */
export function lineCounts(added, deleted) {
  return h("span", { class: "counts" }, h("span", { class: "plus" }, `+${added}`), h("span", { class: "minus" }, `−${deleted}`));
}

/** @param {Line} line */
function one(line) {
  const sign = h("span", { class: "mark" }, SIGNS[line.kind], h("span", { class: "unseen" }, WORDS[line.kind]));
  const number = h("span", { class: "number" }, line.new || line.old || "");
  return h("div", { class: `line ${line.kind}` }, number, sign, h("span", { class: "code" }, clean(line.text)));
}
