/** What one's tasks have where they say nothing: what they ask before, the model, limits; and what was spent today. */

import { Problem } from "../live/api.js";
import { fill, h } from "../dom.js";
import { askedBefore, chosenRules, isOwn } from "../parts/asking.js";
import { Field, number, plain } from "../parts/field.js";
import { ModelChoice } from "../parts/model.js";
import { toast } from "../parts/toast.js";
import { money, timeOfDay } from "../text/units.js";

/** @typedef {import("../live/session.js").Session} Session */
/** @typedef {import("../protocol.js").SettingsShown} Shown */

/** @param {Session} session */
export function defaults(session) {
  const place = h("div", { class: "form defaults" });
  void show(session, place);
  return place;
}

/**
 * @param {Session} session
 * @param {HTMLElement} place
 */
async function show(session, place) {
  try {
    const [{ rules }, shown] = await Promise.all([session.api.get("/api/rules"), session.api.get("/api/settings")]);
    fill(place, asking(session, rules), form(session, place, shown));
  } catch (error) {
    fill(place, h("p", { class: "dim" }, error instanceof Problem ? error.message : String(error)));
  }
}

/**
 * @param {Session} session
 * @param {import("../protocol.js").Rule[]} rules
 */
function asking(session, rules) {
  const { select, node } = askedBefore(rules, "Never");
  select.addEventListener("change", async () => {
    if (isOwn(select.value)) return;
    select.disabled = true;
    await session.api.put("/api/rules", { rules: chosenRules(select.value) }).catch((error) => toast(error.message));
    select.disabled = false;
  });
  return node;
}

/**
 * @param {Session} session
 * @param {HTMLElement} place
 * @param {Shown} shown
 */
function form(session, place, shown) {
  const { settings } = shown;
  const model = new ModelChoice(session, settings.model ?? "");
  const turn = new Field("budget.money_usd", "Dollars a turn", number(settings.budget?.money_usd, "0.01"), "Where a task says nothing; left empty, the server's limit holds.");
  const day = new Field("daily_usd", "Dollars a day", number(settings.daily_usd, "0.01"), spent(shown));
  const zone = new Field("time_zone", "Your day is that of", plain(settings.time_zone ?? "UTC", "Europe/Berlin"));
  const fields = [model.field, turn, day, zone];
  const save = h("button", { class: "button quiet", type: "submit" }, "Save");
  const node = h("form", { class: "form" }, model.node, turn.node, day.node, zone.node, here(zone.input), save);
  node.addEventListener("submit", async (event) => {
    event.preventDefault();
    save.disabled = true;
    const money_usd = turn.value ? Number(turn.value) : undefined;
    const daily_usd = day.value ? Number(day.value) : null;
    const written = { ...settings, model: model.value, budget: { ...settings.budget, money_usd }, daily_usd, time_zone: zone.value.trim() };
    try {
      await session.api.put("/api/settings", written);
      toast("Saved");
      await show(session, place);
    } catch (error) {
      const field = fields.find((one) => error instanceof Problem && one.input.name === error.field);
      if (field) field.complain(error instanceof Error ? error.message : "");
      else toast(error instanceof Error ? error.message : String(error));
    }
    save.disabled = false;
  });
  return node;
}

/** @param {Shown} shown */
function spent({ spent_usd, reserved_usd, limit_usd, day_ends }) {
  const reserved = reserved_usd ? `, ${money(reserved_usd)} is set aside for what runs` : "";
  const limit = limit_usd === null ? ", without a limit" : ` of ${money(limit_usd)}`;
  return `Spent today: ${money(spent_usd)}${limit}${reserved}. The day ends at ${timeOfDay(day_ends)}.`;
}

/** The zone that this device is in. @param {import("../parts/field.js").Input} input */
function here(input) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const choose = () => {
    input.value = zone;
  };
  return zone && zone !== input.value ? h("button", { class: "chip", type: "button", on: { click: choose } }, zone) : null;
}
