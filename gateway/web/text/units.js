/** Money, time and counts as people read them; the same words as in the terminal. Pure. */

/** @typedef {import("../protocol.js").Usage} Usage */
/** @typedef {import("../protocol.js").Published} Published */

/** @param {number} usd */
export function money(usd) {
  if (usd === 0) return "$0.00";
  return usd >= 0.995 ? `$${usd.toFixed(2)}` : `$${usd.toFixed(usd < 0.01 ? 4 : 3)}`;
}

/** @param {number} number */
export function count(number) {
  if (number < 1000) return String(number);
  return number < 1e6 ? `${(number / 1e3).toFixed(1)}k` : `${(number / 1e6).toFixed(1)}M`;
}

/** @param {number} duration */
export function seconds(duration) {
  if (duration < 0.0995) return `${Math.round(duration * 1000)} ms`;
  if (duration < 60) return `${duration.toFixed(1)} s`;
  return long(Math.round(duration));
}

/** Whole seconds, for a clock that runs. @param {number} duration */
export function clock(duration) {
  const whole = Math.max(0, Math.floor(duration));
  return whole < 60 ? `${whole} s` : long(whole);
}

/** @param {number} whole */
function long(whole) {
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

/**
 * @param {number} number
 * @param {string} thing
 */
export function many(number, thing) {
  return `${number} ${thing}${number === 1 ? "" : "s"}`;
}

/** @param {Usage} usage */
export function tokens(usage) {
  const { input_tokens = 0, cache_read_tokens = 0, cache_write_tokens = 0, output_tokens = 0 } = usage;
  return input_tokens + cache_read_tokens + cache_write_tokens + output_tokens;
}

/** In the phone's own zone and manner. @param {string} at ISO time */
export function timeOfDay(at) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/** As a field for a date and a time takes it. @param {string} at ISO time */
export function localTime(at) {
  const here = new Date(at);
  return new Date(here.getTime() - here.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

/** The same, with the day where it is not today. @param {string} at ISO time */
export function dayAndTime(at) {
  const day = new Date(at);
  if (day.toDateString() === new Date().toDateString()) return timeOfDay(at);
  return `${day.toLocaleDateString([], { day: "numeric", month: "short" })}, ${timeOfDay(at)}`;
}

/** What a turn may spend, as far as it is said. @param {import("../protocol.js").Budget} allowed */
export function budget({ money_usd, tokens, steps, wall_seconds }) {
  const told = [
    limit(money_usd, money, "money"),
    limit(tokens, (number) => `${count(number)} tokens`, "tokens"),
    limit(steps, (number) => many(number, "step"), "steps"),
    limit(wall_seconds, seconds, "time"),
  ];
  return told.filter(Boolean).join(", ") || "as configured";
}

/**
 * @param {number | null | undefined} number
 * @param {(number: number) => string} show
 * @param {string} what
 */
function limit(number, show, what) {
  return number === undefined ? "" : number === null ? `any ${what}` : show(number);
}

/** @param {Usage} usage */
export function used(usage) {
  return `${money(usage.cost_usd ?? 0)} · ${count(tokens(usage))} tokens`;
}

/**
 * @param {Usage} one
 * @param {Usage} other
 * @returns {Usage}
 */
export function sum(one, other) {
  return {
    input_tokens: (one.input_tokens ?? 0) + (other.input_tokens ?? 0),
    cache_read_tokens: (one.cache_read_tokens ?? 0) + (other.cache_read_tokens ?? 0),
    cache_write_tokens: (one.cache_write_tokens ?? 0) + (other.cache_write_tokens ?? 0),
    output_tokens: (one.output_tokens ?? 0) + (other.output_tokens ?? 0),
    cost_usd: (one.cost_usd ?? 0) + (other.cost_usd ?? 0),
  };
}

/**
 * How long ago.
 * @param {string} then ISO time; "" gives ""
 * @param {number} now milliseconds
 */
export function age(then, now) {
  const passed = Math.max(0, (now - Date.parse(then)) / 1000);
  if (Number.isNaN(passed)) return "";
  if (passed < 60) return "now";
  if (passed < 3600) return `${Math.floor(passed / 60)} min`;
  if (passed < 172_800) return `${Math.floor(passed / 3600)} h`;
  return `${Math.floor(passed / 86_400)} d`;
}

/** The repository as people call it: `owner/name`, or the last folders of a path. @param {string} repository */
export function shortRepository(repository) {
  const path = repository.replace(/^[a-z+]+:\/\/[^/]*\//i, "").replace(/^[^/:]*@?[^/:]*:(?!\/)/, "");
  return path.replace(/\.git\/?$/, "").replace(/\/$/, "").split("/").slice(-2).join("/");
}
