/** A sentence that goes away by itself; for what needs no answer. */

import { h } from "../dom.js";

const SHOWN_MS = 4_000;

/** @param {string} text */
export function toast(text) {
  document.querySelector(".toast")?.remove();
  const shown = h("div", { class: "toast", role: "status" }, text);
  document.body.append(shown);
  setTimeout(() => shown.remove(), SHOWN_MS);
}

/**
 * @param {string} text
 * @param {string} what
 */
export async function copied(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
  } catch {
    toast("This browser does not let the page copy: press long on the text instead.");
  }
}
