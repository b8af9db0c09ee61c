/** What is asked before: the few sets of rules that most people need. Whoever needs others writes them with `errand rules`. */

import { h } from "../dom.js";

/** @typedef {import("../protocol.js").Rule} Rule */
/** @typedef {{name: string, told: string, rules: Rule[]}} Choice */

const OWN = "own";
/** @type {Choice[]} */
const CHOICES = [
  { name: "finish", told: "Before it finishes and pushes", rules: ask("finish") },
  { name: "changes", told: "Before commands and changes, and the finish", rules: ask("bash", "edit", "finish") },
  { name: "everything", told: "Before everything", rules: ask("*") },
  { name: "nothing", told: "Before nothing", rules: [{ action: "allow" }] },
];

/** @param {...string} tools @returns {Rule[]} */
function ask(...tools) {
  return tools.map((tool) => ({ action: "ask", tool }));
}

/**
 * @param {Rule[]} rules that hold now
 * @param {string} none what it means to have none
 */
export function askedBefore(rules, none) {
  const options = [{ name: "", told: none }, ...CHOICES];
  const name = rules.length ? (CHOICES.find((choice) => same(choice.rules, rules))?.name ?? OWN) : "";
  if (name === OWN) options.push({ name: OWN, told: `By ${rules.length} rules of your own` });
  const select = h("select", { id: "asked-before" }, ...options.map((one) => h("option", { value: one.name }, one.told)));
  select.value = name;
  return { select, node: h("div", { class: "field" }, h("label", { for: "asked-before" }, "Ask me"), select) };
}

/** @param {string} name @returns {Rule[]} */
export function chosenRules(name) {
  return CHOICES.find((choice) => choice.name === name)?.rules ?? [];
}

/** @param {string} name */
export function isOwn(name) {
  return name === OWN;
}

/**
 * @param {Rule[]} some
 * @param {Rule[]} others
 */
function same(some, others) {
  return some.map(line).join() === others.map(line).join();
}

/** @param {Rule} rule */
function line({ action, tool = "*", pattern = "*" }) {
  return `${action} ${tool} ${pattern}`;
}
