/** Secrets for set-ups, as a part of the settings: by name, given anew, forgotten; a value is never shown. */

import { fill, h } from "../dom.js";
import { Problem } from "../live/api.js";
import { confirmed } from "../parts/confirm.js";
import { Field, plain } from "../parts/field.js";
import { ring } from "../parts/icons.js";
import { toast } from "../parts/toast.js";
import { clean } from "../text/clean.js";

/** @typedef {import("../live/session.js").Session} Session */
/** @typedef {import("../protocol.js").SecretShown} Secret */

const NONE = "None yet. A repository's .errand/setup.sh finds yours as variables; the agent never does.";
const FOR_ALL = "Every repository";

/** @param {Session} session */
export function secrets(session) {
  const rows = h("ul", { class: "rows" }, h("li", { class: "loading" }, ring()));
  void show(session, rows);
  return h("div", {}, rows, another(session, rows));
}

/**
 * @param {Session} session
 * @param {HTMLElement} rows
 */
async function show(session, rows) {
  try {
    /** @type {{secrets: Secret[]}} */
    const known = await session.api.get("/api/secrets");
    const lines = known.secrets.map((one) => row(session, rows, one));
    fill(rows, ...(lines.length ? lines : [h("li", { class: "row dim" }, NONE)]));
  } catch (error) {
    fill(rows, h("li", { class: "row dim" }, error instanceof Problem ? error.message : String(error)));
  }
}

/**
 * @param {Session} session
 * @param {HTMLElement} rows
 * @param {Secret} one
 */
function row(session, rows, one) {
  const { name, repository = "" } = one;
  const remove = async () => {
    const sure = await confirmed({ title: `Forget ${clean(name)}?`, text: "No set-up gets it any more.", yes: "Forget it", no: "Keep it" });
    if (!sure) return;
    const path = `/api/secrets/${encodeURIComponent(name)}?repository=${encodeURIComponent(repository)}`;
    await session.api.remove(path).catch((error) => toast(error.message));
    await show(session, rows);
  };
  const main = h("span", { class: "row-main" }, h("span", { class: "row-title mono" }, clean(name)), h("span", { class: "row-sub wraps" }, clean(repository) || FOR_ALL));
  const button = h("button", { class: "button small quiet", "aria-label": `Forget ${clean(name)}`, on: { click: () => void remove() } }, "Forget");
  return h("li", { class: "row" }, main, button);
}

/**
 * @param {Session} session
 * @param {HTMLElement} rows
 */
function another(session, rows) {
  const name = new Field("name", "Name", plain("", "NPM_TOKEN"));
  const value = new Field("value", "Value", h("input", { type: "password", autocomplete: "off" }), "It is sealed by the server; nobody can read it back.");
  const repository = new Field("repository", "Only for the repository", plain("", "https://github.com/me/app"), "Left empty, every repository's set-up gets it.");
  const fields = [name, value, repository];
  const save = h("button", { class: "button quiet", type: "submit" }, "Save secret");
  const form = h("form", { class: "form", hidden: true }, name.node, value.node, repository.node, save);
  const open = h("button", { class: "button quiet", on: { click: () => ((form.hidden = false), (open.hidden = true), name.input.focus()) } }, "Add a secret");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    save.disabled = true;
    try {
      await session.api.post("/api/secrets", { name: name.value.trim(), value: value.value, repository: repository.value.trim() });
      form.reset();
      form.hidden = true;
      open.hidden = false;
      await show(session, rows);
    } catch (error) {
      const field = fields.find((one) => error instanceof Problem && one.input.name === error.field);
      if (field) field.complain(error instanceof Error ? error.message : "");
      else toast(error instanceof Error ? error.message : String(error));
    }
    save.disabled = false;
  });
  return h("div", { class: "new-link" }, open, form);
}
