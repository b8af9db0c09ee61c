/** Whatever a task brings is text: what would steer the reader's eye is taken out before it is shown. */

const SEQUENCES = new RegExp(
  [
    "(?:\\x1b\\]|\\x9d)[^\\x07\\x1b\\x9c\\n]*(?:\\x07|\\x1b\\\\|\\x9c|(?=\\n)|$)", // OSC: titles, links, the clipboard
    "(?:\\x1b[PX^_]|[\\x90\\x98\\x9e\\x9f])[^\\x1b\\x9c\\n]*(?:\\x1b\\\\|\\x9c|(?=\\n)|$)", // DCS, SOS, PM, APC
    "(?:\\x1b\\[|\\x9b)[0-?]*[ -/]*(?:[@-~]|$)", // CSI: colours, cursor, erase
    "\\x1b[ -/]*[0-~]?", // two-character escapes, or one that was cut off
  ].join("|"),
  "g",
);
// C0 but tab, newline and escape, DEL, C1, what turns the writing direction (CVE-2021-42574), tags, lone surrogates
const CONTROLS =
  /[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\u{e0000}-\u{e007f}\ud800-\udfff]/gu;
const NEWLINES = /\r\n|[\u2028\u2029\x85]/g;

/** Sequences other than colours are left out; colours stay for `ansi.js`. */
const COLOUR = /^\x1b\[[\d;:]*m$/;

/**
 * Lines of printable characters. A line that was written over (progress bars) keeps its last state.
 * @param {string} text
 */
export function clean(text) {
  return plain(text).replaceAll("\x1b", "");
}

/**
 * As `clean`, with the colours still in it.
 * @param {string} text
 */
export function coloured(text) {
  return controlled(text.replace(NEWLINES, "\n").replace(SEQUENCES, (found) => (COLOUR.test(found) ? found : "")));
}

/** @param {string} text */
function plain(text) {
  return controlled(text.replace(NEWLINES, "\n").replace(SEQUENCES, ""));
}

/** @param {string} text */
function controlled(text) {
  const written = text.includes("\r") ? text.split("\n").map(lastState).join("\n") : text;
  return written.replace(CONTROLS, "");
}

/** @param {string} line */
function lastState(line) {
  const ended = line.replace(/\r+$/, "");
  return ended.slice(ended.lastIndexOf("\r") + 1);
}

/**
 * The first line, with a sign that there is more; cut at `limit` characters.
 * @param {string} text
 */
export function oneLine(text, limit = 400) {
  const lines = clean(text).trim().split("\n").filter((line) => line.trim());
  return cut((lines[0] ?? "").trimEnd() + (lines.length > 1 ? " …" : ""), limit);
}

/**
 * @param {string} text
 * @param {number} limit
 */
export function cut(text, limit) {
  return text.length <= limit ? text : text.slice(0, limit - 1) + "…";
}

/**
 * The last lines that are not empty.
 * @param {string} text
 * @param {number} count
 */
export function tail(text, count) {
  const end = text.slice(-200 * 80); // of a long output the end is enough
  return end.split("\n").filter((line) => line.trim()).slice(-count).join("\n");
}
