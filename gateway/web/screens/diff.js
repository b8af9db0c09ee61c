/** What a task changed, file by file. */

import { fill, h } from "../dom.js";
import { Problem } from "../live/api.js";
import { bar } from "../parts/bar.js";
import { icon, ring } from "../parts/icons.js";
import { diffLines, lineCounts } from "../parts/lines.js";
import { clean } from "../text/clean.js";
import { parse } from "../text/diff.js";
import { many } from "../text/units.js";

/** @typedef {import("../live/session.js").Session} Session */
/** @typedef {import("../protocol.js").Diff} Diff */
/** @typedef {import("../text/diff.js").File} File */
/** @typedef {import("../text/diff.js").Hunk} Hunk */

const OPEN_LINES = 300;
/** Files are open from the first on, up to so many lines together. */
const PART_LINES = 1_000;

/**
 * @param {{session: Session}} context
 * @param {string} task
 */
export function diffScreen({ session }, task) {
  const body = h("main", { class: "body", tabindex: -1 }, h("div", { class: "loading" }, ring()));
  void load(session, task, body);
  return {
    title: "Changes",
    node: h("div", { class: "screen" }, bar({ title: "Changes", back: `#/task/${task}` }), body),
    close() {},
  };
}

/**
 * @param {Session} session
 * @param {string} task
 * @param {HTMLElement} body
 */
async function load(session, task, body) {
  try {
    fill(body, ...whole(await session.api.get(`/api/tasks/${task}/diff`)));
  } catch (error) {
    const reason = error instanceof Problem ? error.message : String(error);
    const again = h("button", { class: "button", on: { click: () => void load(session, task, body) } }, "Try again");
    fill(body, h("div", { class: "empty" }, h("h2", {}, "No changes to show"), h("p", {}, reason), again));
  }
}

/** @param {Diff} diff */
function whole(diff) {
  const files = parse(diff.text);
  const added = files.reduce((sum, file) => sum + file.added, 0);
  const deleted = files.reduce((sum, file) => sum + file.deleted, 0);
  let shown = 0;
  const boxes = files.map((file) => {
    shown += file.added + file.deleted;
    return fileBox(file, shown <= OPEN_LINES);
  });
  const head = h("p", { class: "diff-head" }, many(files.length, "file"), " changed", lineCounts(added, deleted));
  const cut = diff.cut ? h("p", { class: "note warning" }, "This diff is too long to show whole: its end is cut off. The branch has all of it.") : null;
  return [head, ...boxes, cut];
}

/**
 * @param {File} file
 * @param {boolean} open
 */
function fileBox(file, open) {
  const at = file.path.lastIndexOf("/") + 1;
  const name = h("span", { class: "file-name" }, h("span", { class: "dim" }, clean(file.path.slice(0, at))), clean(file.path.slice(at)));
  const how = file.how === "changed" ? null : h("span", { class: `tag ${file.how}` }, file.how);
  const body = h("div", { class: "file-body" });
  const fillBody = () => void (box.open && !body.firstChild && fill(body, ...fileBody(file)));
  const summary = h("summary", {}, icon("next"), name, how, file.added + file.deleted ? lineCounts(file.added, file.deleted) : null);
  const box = h("details", { class: "file", open, on: { toggle: fillBody } }, summary, body);
  fillBody();
  return box;
}

/** @param {File} file @returns {Node[]} */
function fileBody(file) {
  const told = [];
  if (file.from) told.push(`was ${file.from}`);
  if (file.mode) told.push(file.mode);
  if (file.binary) told.push("A binary file: not shown.");
  else if (!file.hunks.length && !told.length) told.push("Empty.");
  const notes = told.map((text) => h("p", { class: "file-note" }, clean(text)));
  return file.hunks.length ? [...notes, h("div", { class: "scrolls", tabindex: 0 }, h("div", { class: "hunks" }, ...hunks(file)))] : notes;
}

/** @param {File} file */
function hunks(file) {
  let left = PART_LINES;
  /** @type {HTMLElement[]} */
  const made = [];
  for (const [at, hunk] of file.hunks.entries()) {
    made.push(hunkBox(hunk, left));
    left -= hunk.lines.length;
    if (left > 0) continue;
    const rest = [{ ...hunk, lines: hunk.lines.slice(hunk.lines.length + left) }, ...file.hunks.slice(at + 1)];
    const lines = rest.reduce((sum, one) => sum + one.lines.length, 0);
    if (lines) made.push(theRest(rest, lines));
    break;
  }
  return made;
}

/**
 * @param {Hunk[]} rest
 * @param {number} lines
 */
function theRest(rest, lines) {
  const button = h("button", { class: "button small quiet", on: { click: () => button.replaceWith(...rest.map((one) => hunkBox(one, Infinity))) } }, `Show ${lines} more lines`);
  return button;
}

/**
 * @param {Hunk} hunk
 * @param {number} limit
 */
function hunkBox(hunk, limit) {
  return h("div", { class: "hunk" }, h("div", { class: "hunk-head" }, clean(hunk.head) || "⋯"), diffLines(hunk.lines.slice(0, limit)));
}
