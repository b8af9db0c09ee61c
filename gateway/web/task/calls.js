/** A tool call as one line that a person reads; the same words as in the terminal. Pure. */

import { oneLine } from "../text/clean.js";

const WORKSPACE = "/workspace/";
/** @type {Record<string, string>} */
const EDITS = { view: "read", create: "write", str_replace: "edit", insert: "edit" };
export const EDIT_TOOL = "str_replace_based_edit_tool";

/** @typedef {Record<string, any>} Given what a model wrote: any shape */

/**
 * Such as `$ python -m unittest` or `edit src/x.py`.
 * @param {string} name
 * @param {Given} given
 */
export function describe(name, given) {
  return oneLine(described(name, given));
}

/**
 * @param {string} name
 * @param {Given} given
 */
function described(name, given) {
  switch (name) {
    case "bash":
      return given.restart ? "restart the shell" : `$ ${text(given, "command")}`;
    case "process":
      return background(given);
    case EDIT_TOOL:
      return `${EDITS[text(given, "command")] ?? "edit"} ${path(given) || "?"}${range(given)}`;
    case "grep": {
      const where = [path(given), text(given, "include")].filter(Boolean).join(" ");
      return `grep "${text(given, "pattern")}"${where ? ` in ${where}` : ""}`;
    }
    case "glob":
      return `list ${text(given, "pattern")}`;
    case "ask_user":
      return `ask: ${text(given, "question")}`;
    case "todo":
      return "plan";
    case "finish":
      return "finish";
    default:
      return `${name} ${JSON.stringify(given)}`;
  }
}

/** @param {Given} given */
function background(given) {
  if (given.action === "start") return `in the background: $ ${text(given, "command")}`;
  if (given.action === "list") return "list background processes";
  return `${text(given, "action")} background process ${text(given, "number")}`;
}

/**
 * @param {Given} given
 * @param {string} field
 */
export function text(given, field) {
  const value = given[field] ?? "";
  return typeof value === "string" ? value : String(value);
}

/** Relative to the repository; empty for the whole of it. @param {Given} given */
export function path(given) {
  const whole = text(given, "path");
  if (whole === "." || whole === "/workspace") return "";
  return whole.startsWith(WORKSPACE) ? whole.slice(WORKSPACE.length) : whole;
}

/** @param {Given} given */
function range(given) {
  const lines = given.view_range;
  return Array.isArray(lines) && lines.length === 2 ? `:${lines[0]}-${lines[1]}` : "";
}
