/**
 * The little Markdown that models write, as elements: text nodes only, so that nothing in it can act. Links go to http
 * and https alone, open elsewhere, and say where they lead. Pictures are links. Each character is looked at a bounded
 * number of times, whatever the text.
 */

import { h } from "../dom.js";
import { clean } from "./clean.js";

const LIMIT_CHARS = 60_000;
const INLINE_LIMIT_CHARS = 10_000;
/** Longer pieces are shown as they are. */
const DEPTH_LIMIT = 4;

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}(?:-{3,}|\*{3,}|_{3,})[ \t]*$/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])[ \t]+(.*)$/;
const QUOTE = /^ {0,3}> ?(.*)$/;
const TABLE_LINE = /^[ \t]*\|?[ \t:|-]*-[ \t:|-]*\|[ \t:|-]*$|^[ \t]*\|[ \t:-]+\|?[ \t]*$/;
const ADDRESS = /https?:\/\/[^\s<>"'`\\{}|^]+/y;

/**
 * @param {string} text as a model wrote it
 * @returns {DocumentFragment}
 */
export function markdown(text) {
  const made = document.createDocumentFragment();
  const whole = clean(text);
  const lines = whole.slice(0, LIMIT_CHARS).split("\n");
  let at = 0;
  while (at < lines.length) {
    const [node, next] = block(lines, at);
    if (node) made.append(node);
    at = next;
  }
  if (whole.length > LIMIT_CHARS) made.append(rest(whole.slice(LIMIT_CHARS)));
  return made;
}

/** What is too long to be worth a look: as it is, on demand. @param {string} text */
function rest(text) {
  const body = h("div", { class: "rest" });
  const show = () => void (body.firstChild ?? body.append(text));
  return h("details", { on: { toggle: show } }, h("summary", {}, `The rest: ${text.length} characters`), body);
}

/**
 * The block that begins at line `at`, and the line after it.
 * @param {string[]} lines
 * @param {number} at
 * @returns {[Node | null, number]}
 */
function block(lines, at) {
  const line = lines[at] ?? "";
  if (!line.trim()) return [null, at + 1];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence[1] ?? "```");
  const heading = HEADING.exec(line);
  if (heading) return [h("p", { class: "heading" }, ...inline((heading[2] ?? "").replace(/[ \t]+#+$/, ""))), at + 1];
  if (RULE.test(line)) return [h("hr"), at + 1];
  if (ITEM.test(line)) return list(lines, at);
  if (QUOTE.test(line)) return quote(lines, at);
  if (line.includes("|") && TABLE_LINE.test(lines[at + 1] ?? "")) return table(lines, at);
  return paragraph(lines, at);
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @param {string} fence
 * @returns {[Node, number]}
 */
function code(lines, at, fence) {
  let end = at + 1;
  while (end < lines.length && !isFenceEnd(lines[end] ?? "", fence)) end += 1;
  return [h("pre", { class: "code", tabindex: 0 }, h("code", {}, lines.slice(at + 1, end).join("\n"))), end + 1];
}

/**
 * @param {string} line
 * @param {string} fence
 */
function isFenceEnd(line, fence) {
  const end = line.trim();
  return end.length >= fence.length && end === (fence[0] ?? "`").repeat(end.length);
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {[Node, number]}
 */
function list(lines, at) {
  const ordered = /\d/.test(ITEM.exec(lines[at] ?? "")?.[2] ?? "");
  const made = h(ordered ? "ol" : "ul");
  let end = at;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end] ?? "");
    if (!item) break;
    const [text, next] = itemText(lines, end, item[3] ?? "");
    const depth = Math.min(3, Math.floor((item[1] ?? "").length / 2));
    const number = ordered && depth === 0 ? parseInt(item[2] ?? "1", 10) : null;
    const node = h("li", depth ? { class: `deep${depth}` } : {}, ...inline(checkbox(text)));
    if (number !== null) node.value = number;
    made.append(node);
    end = next;
  }
  return [made, end];
}

/**
 * An item's text with the lines that go on with it.
 * @param {string[]} lines
 * @param {number} at
 * @param {string} first
 * @returns {[string, number]}
 */
function itemText(lines, at, first) {
  const parts = [first];
  let end = at + 1;
  while (end < lines.length && /^ {2,}\S/.test(lines[end] ?? "") && !ITEM.test(lines[end] ?? "")) {
    parts.push((lines[end] ?? "").trim());
    end += 1;
  }
  return [parts.join("\n"), end];
}

/** @param {string} text */
function checkbox(text) {
  return text.replace(/^\[ \] /, "☐ ").replace(/^\[[xX]\] /, "☑ ");
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {[Node, number]}
 */
function quote(lines, at) {
  const parts = [];
  let end = at;
  for (let line; end < lines.length && (line = QUOTE.exec(lines[end] ?? "")); end += 1) parts.push(line[1] ?? "");
  return [h("blockquote", {}, ...inline(parts.join("\n"))), end];
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {[Node, number]}
 */
function table(lines, at) {
  const head = h("tr", {}, ...cells(lines[at] ?? "").map((cell) => h("th", {}, ...inline(cell))));
  const made = h("table", {}, h("thead", {}, head));
  const body = made.appendChild(h("tbody"));
  let end = at + 2;
  for (; end < lines.length && (lines[end] ?? "").includes("|"); end += 1) {
    body.append(h("tr", {}, ...cells(lines[end] ?? "").map((cell) => h("td", {}, ...inline(cell)))));
  }
  return [h("div", { class: "scrolls", tabindex: 0 }, made), end];
}

/** @param {string} line */
function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}

/**
 * @param {string[]} lines
 * @param {number} at
 * @returns {[Node, number]}
 */
function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && !begins(lines[end] ?? "")) end += 1;
  return [h("p", {}, ...inline(lines.slice(at, end).join("\n"))), end];
}

/** Whether a line ends the paragraph before it. @param {string} line */
function begins(line) {
  return !line.trim() || [FENCE, HEADING, RULE, ITEM, QUOTE].some((start) => start.test(line));
}

/**
 * @param {string} text
 * @returns {Node[]}
 */
export function inline(text, depth = 0) {
  if (text.length > INLINE_LIMIT_CHARS || depth > DEPTH_LIMIT) return [document.createTextNode(text)];
  return new Inline(text, depth).nodes();
}

class Inline {
  /** @type {Node[]} */
  #made = [];
  #plain = "";
  #at = 0;
  /** Marks that are nowhere closed: looked for once. @type {Set<string>} */
  #open = new Set();
  #text;
  #depth;

  /**
   * @param {string} text
   * @param {number} depth
   */
  constructor(text, depth) {
    this.#text = text;
    this.#depth = depth;
  }

  nodes() {
    while (this.#at < this.#text.length) {
      if (!this.#special()) this.#plain += this.#text[this.#at++];
    }
    this.#flush();
    return this.#made;
  }

  /** Take what begins here, if something does. */
  #special() {
    switch (this.#text[this.#at]) {
      case "`":
        return this.#code();
      case "*":
        return this.#marked("**", "strong") || this.#marked("*", "em");
      case "_":
        return this.#marked("__", "strong") || this.#marked("_", "em");
      case "~":
        return this.#marked("~~", "s");
      case "!":
        return this.#text[this.#at + 1] === "[" && this.#link(1);
      case "[":
        return this.#link(0);
      case "h":
        return this.#address();
      case "\\":
        return this.#escaped();
      default:
        return false;
    }
  }

  #code() {
    const ticks = /`+/y;
    ticks.lastIndex = this.#at;
    const mark = ticks.exec(this.#text)?.[0] ?? "`";
    const end = this.#find(mark, this.#at + mark.length);
    if (end < 0) {
      this.#plain += mark;
      this.#at += mark.length;
      return true;
    }
    const text = this.#text.slice(this.#at + mark.length, end);
    this.#put(h("code", {}, /^ .+ $/.test(text) ? text.slice(1, -1) : text), end + mark.length);
    return true;
  }

  /**
   * @param {string} mark
   * @param {"strong" | "em" | "s"} tag
   */
  #marked(mark, tag) {
    const start = this.#at + mark.length;
    if (!this.#text.startsWith(mark, this.#at) || /\s/.test(this.#text[start] ?? " ")) return false;
    if (mark[0] === "_" && /\w/.test(this.#text[this.#at - 1] ?? " ")) return false; // snake_case
    const end = this.#find(mark, start + 1);
    if (end < 0 || /\s/.test(this.#text[end - 1] ?? " ")) return false;
    if (mark[0] === "_" && /\w/.test(this.#text[end + mark.length] ?? " ")) return false;
    this.#put(h(tag, {}, ...inline(this.#text.slice(start, end), this.#depth + 1)), end + mark.length);
    return true;
  }

  /** `[text](address)`. @param {number} skip characters before the bracket */
  #link(skip) {
    const middle = this.#find("](", this.#at + skip + 1);
    const end = middle < 0 ? -1 : this.#find(")", middle + 2);
    const address = end < 0 ? null : webAddress(this.#text.slice(middle + 2, end).split(/\s/)[0] ?? "");
    if (!address) return false;
    this.#put(link(address, this.#text.slice(this.#at + skip + 1, middle)), end + 1);
    return true;
  }

  #address() {
    ADDRESS.lastIndex = this.#at;
    const found = ADDRESS.exec(this.#text)?.[0].replace(/[.,;:!?)\]*_]+$/, "");
    const address = found ? webAddress(found) : null;
    if (!found || !address) return false;
    this.#put(link(address, found), this.#at + found.length);
    return true;
  }

  #escaped() {
    const next = this.#text[this.#at + 1] ?? "";
    if (!/[\\`*_~[\]()#!.>-]/.test(next)) return false;
    this.#plain += next;
    this.#at += 2;
    return true;
  }

  /**
   * @param {string} mark
   * @param {number} from
   */
  #find(mark, from) {
    if (this.#open.has(mark)) return -1;
    const found = this.#text.indexOf(mark, from);
    if (found < 0) this.#open.add(mark);
    return found;
  }

  /**
   * @param {Node} node
   * @param {number} next
   */
  #put(node, next) {
    this.#flush();
    this.#made.push(node);
    this.#at = next;
  }

  #flush() {
    if (this.#plain) this.#made.push(document.createTextNode(this.#plain));
    this.#plain = "";
  }
}

/** @param {string} text @returns {URL | null} */
export function webAddress(text) {
  if (!URL.canParse?.(text)) return null;
  const url = new URL(text);
  const isWeb = url.protocol === "https:" || url.protocol === "http:";
  return isWeb && !url.username && !url.password ? url : null;
}

/**
 * A link that says where it leads, if its text does not.
 * @param {URL} address
 * @param {string} text
 */
export function link(address, text) {
  const shown = text.trim() || address.href;
  const told = shown === address.href || shown.startsWith(`${address.origin}/`) || shown === address.origin;
  const made = h("a", { href: address.href, target: "_blank", rel: "noopener noreferrer" }, shown);
  return told ? made : h("span", {}, made, h("span", { class: "leads" }, ` (${address.host})`));
}
