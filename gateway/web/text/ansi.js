/** Terminal colours as pieces of text with a style each. What is not a colour was taken out by `clean.js`. Pure. */

import { coloured } from "./clean.js";

/** @typedef {{text: string, classes: string[]}} Piece */
/** @typedef {{colour: number | null, back: number | null, bold: boolean, dim: boolean, italic: boolean, under: boolean}} Style */

const PLAIN = Object.freeze({ colour: null, back: null, bold: false, dim: false, italic: false, under: false });
const COLOUR = /\x1b\[([\d;:]*)m/g;
const LEVELS = [0, 95, 135, 175, 215, 255];

/**
 * @param {string} text as a command wrote it
 * @returns {Piece[]}
 */
export function pieces(text) {
  const written = coloured(text);
  /** @type {Piece[]} */
  const found = [];
  let style = /** @type {Style} */ (PLAIN);
  let from = 0;
  for (const match of written.matchAll(COLOUR)) {
    add(found, written.slice(from, match.index), style);
    style = after(style, match[1] ?? "");
    from = match.index + match[0].length;
  }
  add(found, written.slice(from), style);
  return found;
}

/**
 * @param {Piece[]} found
 * @param {string} text
 * @param {Style} style
 */
function add(found, text, style) {
  const shown = text.replaceAll("\x1b", "");
  if (shown) found.push({ text: shown, classes: classes(style) });
}

/** @param {Style} style */
function classes(style) {
  const names = [style.bold && "bold", style.dim && "dim", style.italic && "italic", style.under && "under"];
  if (style.colour !== null) names.push(`c${style.colour}`);
  if (style.back !== null) names.push("ground");
  return names.filter((name) => name !== false);
}

/**
 * The style after one `ESC [ codes m`.
 * @param {Style} before
 * @param {string} codes
 */
function after(before, codes) {
  const given = codes.split(/[;:]/).map(Number);
  let style = before;
  while (given.length) style = apply(style, given.shift() ?? 0, given);
  return style;
}

/**
 * @param {Style} style
 * @param {number} code
 * @param {number[]} rest what follows; a colour by number takes from it
 * @returns {Style}
 */
function apply(style, code, rest) {
  if (code === 0) return PLAIN;
  if (code === 1) return { ...style, bold: true };
  if (code === 2) return { ...style, dim: true };
  if (code === 3) return { ...style, italic: true };
  if (code === 4) return { ...style, under: true };
  if (code === 22) return { ...style, bold: false, dim: false };
  if (code === 23) return { ...style, italic: false };
  if (code === 24) return { ...style, under: false };
  if (code === 38) return { ...style, colour: numbered(rest) };
  if (code === 48) return { ...style, back: numbered(rest) };
  if (code === 39) return { ...style, colour: null };
  if (code === 49) return { ...style, back: null };
  return basic(style, code);
}

/**
 * @param {Style} style
 * @param {number} code
 * @returns {Style}
 */
function basic(style, code) {
  if (code >= 30 && code <= 37) return { ...style, colour: code - 30 };
  if (code >= 90 && code <= 97) return { ...style, colour: code - 82 };
  if (code >= 40 && code <= 47) return { ...style, back: code - 40 };
  if (code >= 100 && code <= 107) return { ...style, back: code - 92 };
  return style;
}

/**
 * `5;n` or `2;r;g;b`, as the nearest of the sixteen: those have a look in both themes.
 * @param {number[]} rest
 */
function numbered(rest) {
  const kind = rest.shift();
  if (kind === 5) return ofPalette(rest.shift() ?? 7);
  if (kind === 2) return ofLight(rest.splice(0, 3));
  return null;
}

/** @param {number} number */
function ofPalette(number) {
  if (number < 16) return number;
  if (number >= 232) return number < 244 ? 8 : 7;
  const cube = number - 16;
  return ofLight([Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map((at) => LEVELS[at] ?? 0));
}

/** @param {number[]} light red, green, blue of 0 to 255 */
function ofLight(light) {
  const strongest = Math.max(...light, 1);
  const bits = light.reduce((sum, one, at) => sum + (one > strongest * 0.6 ? 1 << at : 0), 0);
  if (bits === 7) return strongest > 200 ? 15 : strongest > 100 ? 7 : 8;
  return strongest > 200 ? bits + 8 : bits;
}
