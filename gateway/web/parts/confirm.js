/** Asks before something that cannot be taken back. */

import { h } from "../dom.js";

/**
 * @param {object} given
 * @param {string} given.title
 * @param {string} given.text
 * @param {string} given.yes what the button does
 * @param {string} [given.no]
 * @returns {Promise<boolean>}
 */
export function confirmed({ title, text, yes, no = "Keep going" }) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { class: "sheet", "aria-labelledby": "sheet-title" },
      h("h2", { id: "sheet-title" }, title),
      h("p", {}, text),
      h("button", { class: "button danger", on: { click: () => dialog.close("yes") } }, yes),
      h("button", { class: "button quiet", on: { click: () => dialog.close("") } }, no),
    );
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close(""));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
