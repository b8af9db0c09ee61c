/** Tasks by the calendar, as a part of the settings: when each is due, why one has stopped. */

import { fill, h } from "../dom.js";
import { Problem } from "../live/api.js";
import { confirmed } from "../parts/confirm.js";
import { ring } from "../parts/icons.js";
import { toast } from "../parts/toast.js";
import { clean } from "../text/clean.js";
import { dayAndTime } from "../text/units.js";

/** @typedef {import("../live/session.js").Session} Session */
/** @typedef {import("../protocol.js").Schedule} Schedule */

const NONE = "None yet: `errand schedule add` makes one.";

/** @param {Session} session */
export function schedules(session) {
  const rows = h("ul", { class: "rows" }, h("li", { class: "loading" }, ring()));
  void show(session, rows);
  return rows;
}

/**
 * @param {Session} session
 * @param {HTMLElement} rows
 */
async function show(session, rows) {
  try {
    /** @type {{schedules: Schedule[]}} */
    const known = await session.api.get("/api/schedules");
    const lines = known.schedules.map((one) => row(session, rows, one));
    fill(rows, ...(lines.length ? lines : [h("li", { class: "row dim" }, NONE)]));
  } catch (error) {
    fill(rows, h("li", { class: "row dim" }, error instanceof Problem ? error.message : String(error)));
  }
}

/**
 * @param {Session} session
 * @param {HTMLElement} rows
 * @param {Schedule} one
 */
function row(session, rows, one) {
  const name = clean(one.name);
  const next = one.paused ? clean(one.paused) : `Next ${dayAndTime(one.next_at ?? "")}`;
  const what = h("span", { class: "row-sub wraps" }, `${next} · ${one.cron}, ${one.time_zone}`);
  const last = one.last_task ? h("a", { class: "row-sub", href: `#/task/${one.last_task}` }, `The last one has ${one.last_outcome}`) : null;
  const verb = one.paused ? "resume" : "pause";
  const tell = async (/** @type {() => Promise<unknown>} */ ask) => {
    await ask().catch((error) => toast(error.message));
    await show(session, rows);
  };
  const button = (/** @type {string} */ label, /** @type {() => void} */ click) =>
    h("button", { class: "button small quiet", "aria-label": `${label} ${name}`, on: { click } }, label);
  const remove = async () => {
    const sure = await confirmed({ title: `Remove ${name}?`, text: "Nothing more is submitted by it. Its tasks stay.", yes: "Remove it", no: "Keep it" });
    if (sure) await tell(() => session.api.remove(`/api/schedules/${one.id}`));
  };
  return h(
    "li",
    { class: "row" },
    h("span", { class: "row-main" }, h("span", { class: "row-title" }, name), what, last),
    button(one.paused ? "Resume" : "Pause", () => void tell(() => session.api.post(`/api/schedules/${one.id}/${verb}`, {}))),
    button("Remove", () => void remove()),
  );
}
