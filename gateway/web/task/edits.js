/** What an edit asked for, as the lines of a diff. Pure. */

import { text } from "./calls.js";

/** @typedef {import("../text/diff.js").Line} Line */

/**
 * @param {Record<string, any>} given the call's input
 * @returns {Line[]} empty for a call that changes nothing
 */
export function changedLines(given) {
  switch (given.command) {
    case "create":
      return lines("add", text(given, "file_text"), 1);
    case "insert":
      return lines("add", text(given, "insert_text") || text(given, "new_str"), Number(given.insert_line ?? 0) + 1);
    case "str_replace":
      return replaced(text(given, "old_str").split("\n"), text(given, "new_str").split("\n"));
    default:
      return [];
  }
}

/**
 * What both have at their start and end is context.
 * @param {string[]} before
 * @param {string[]} after
 * @returns {Line[]}
 */
function replaced(before, after) {
  const shorter = Math.min(before.length, after.length);
  let head = 0;
  while (head < shorter && before[head] === after[head]) head += 1;
  let end = 0;
  while (end < shorter - head && before[before.length - 1 - end] === after[after.length - 1 - end]) end += 1;
  return [
    ...unnumbered("same", before.slice(0, head)),
    ...unnumbered("del", before.slice(head, before.length - end)),
    ...unnumbered("add", after.slice(head, after.length - end)),
    ...unnumbered("same", before.slice(before.length - end)),
  ];
}

/**
 * @param {Line["kind"]} kind
 * @param {string} whole
 * @param {number} first
 * @returns {Line[]}
 */
function lines(kind, whole, first) {
  return whole.replace(/\n$/, "").split("\n").map((line, at) => ({ kind, old: 0, new: first + at, text: line }));
}

/**
 * @param {Line["kind"]} kind
 * @param {string[]} texts
 * @returns {Line[]}
 */
function unnumbered(kind, texts) {
  return texts.map((line) => ({ kind, old: 0, new: 0, text: line }));
}
