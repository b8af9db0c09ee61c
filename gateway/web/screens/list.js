/** The task list: what needs you, what is at work, what is over. */

import { fill, h } from "../dom.js";
import { Problem } from "../live/api.js";
import { bar } from "../parts/bar.js";
import { icon, ring, stateSign } from "../parts/icons.js";
import { Keyed } from "../parts/keyed.js";
import { toast } from "../parts/toast.js";
import { WORDS } from "../task/states.js";
import { clean, oneLine } from "../text/clean.js";
import { age, dayAndTime, money, shortRepository } from "../text/units.js";

/** @typedef {import("../protocol.js").TaskSummary} TaskSummary */
/** @typedef {import("../live/outbox.js").Entry} Entry */
/** @typedef {import("../live/session.js").Session} Session */

const AGES_MS = 20_000;
const EXAMPLES = [
  "Run the tests and fix what fails.",
  "Write a README that says how to install and use this.",
  "Find out why the build is slow, and make it faster.",
];
const WHAT_IT_DOES =
  "Name a repository and say what you want. Errand works on a copy of it, shows you every step, asks when it needs " +
  "you, and ends with a branch to look at.";

/** @param {{session: Session}} context */
export function listScreen({ session }) {
  const sections = new Sections(session);
  const body = h("main", { class: "body", tabindex: -1 }, sections.node);
  const older = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && void sections.more(), {
    root: body,
    rootMargin: "400px",
  });
  const draw = () => {
    sections.draw();
    older.unobserve(sections.end);
    if (session.list.more) older.observe(sections.end); // tells anew whether the end is near
  };
  const offs = [session.list.changed.on(draw), session.outbox.changed.on(draw)];
  const ticking = setInterval(() => sections.tick(), AGES_MS);
  draw();
  requestAnimationFrame(() => (body.scrollTop = session.listScroll));
  const settings = h("a", { class: "round", href: "#/settings", "aria-label": "Settings" }, icon("gear"));
  return {
    title: "Errand",
    node: h(
      "div",
      { class: "screen" },
      bar({ title: "Errand", actions: [settings] }),
      body,
      h("a", { class: "button float", href: "#/new" }, icon("plus"), "New task"),
    ),
    close() {
      session.listScroll = body.scrollTop;
      clearInterval(ticking);
      older.disconnect();
      for (const off of offs) off();
    },
  };
}

class Sections {
  end = h("div", { class: "end" });
  node = h("div", { class: "groups" });
  #empty = h("div");
  #session;
  #unsent;
  #needsYou;
  #atWork;
  #over;

  /** @param {Session} session */
  constructor(session) {
    this.#session = session;
    /** @type {Section<Entry>} */
    this.#unsent = new Section("Not sent yet", (entry) => entry.frame.key, (entry) => unsentRow(session, entry));
    this.#needsYou = new Section("Needs you", idOf, row);
    this.#atWork = new Section("At work", idOf, row);
    this.#over = new Section("Earlier", idOf, row);
    const sections = [this.#unsent, this.#needsYou, this.#atWork, this.#over];
    this.node.append(...sections.map((section) => section.node), this.#empty, this.end);
  }

  draw() {
    const { list, outbox } = this.#session;
    const { needsYou, atWork, over } = list.groups;
    const unsent = outbox.entries.filter((entry) => entry.frame.type === "submit" && !list.get(entry.task));
    this.#unsent.show(unsent);
    this.#needsYou.show(needsYou);
    this.#atWork.show(atWork);
    this.#over.show(over);
    const some = unsent.length + needsYou.length + atWork.length + over.length;
    fill(this.#empty, some ? null : list.known ? emptyState() : skeleton());
    fill(this.end, list.more ? ring() : null);
  }

  tick() {
    for (const shown of this.node.querySelectorAll("time")) showAge(shown);
  }

  async more() {
    try {
      await this.#session.list.loadMore();
    } catch (error) {
      if (error instanceof Problem) toast(error.message);
    }
  }
}

/** @template T */
class Section {
  node;
  #keyed;

  /**
   * @param {string} title
   * @param {(item: T) => string} keyOf
   * @param {(item: T) => Element} make
   */
  constructor(title, keyOf, make) {
    const rows = h("ul", { class: "rows" });
    const id = `group-${title.replaceAll(" ", "-").toLowerCase()}`;
    this.node = h("section", { class: "group", "aria-labelledby": id, hidden: true }, h("h2", { id }, title), rows);
    this.#keyed = new Keyed(rows, keyOf, make);
  }

  /** @param {T[]} items */
  show(items) {
    this.node.hidden = items.length === 0;
    this.#keyed.show(items);
  }
}

/** @param {TaskSummary} task */
function idOf(task) {
  return task.id;
}

/** @param {TaskSummary} task */
function row(task) {
  const cost = task.cost_usd ? `· ${money(task.cost_usd)}` : "";
  const asks = task.state === "waiting" ? oneLine(task.question || task.reason || "") : "";
  const when = h("time", { datetime: task.updated_at });
  showAge(when);
  const where = h("span", { class: "row-where" }, clean(shortRepository(task.repository)));
  const tags = (task.tags ?? []).map((tag) => h("span", { class: "row-tag", dir: "auto" }, `#${clean(tag)}`));
  const main = h(
    "span",
    { class: "row-main" },
    h("span", { class: "row-title", dir: "auto" }, oneLine(task.title) || "Untitled"),
    asks ? h("span", { class: "row-asks", dir: "auto" }, asks) : null,
    h("span", { class: "row-sub" }, h("span", { class: `word ${task.state}` }, WORDS[task.state]), "·", where, cost, ...tags),
    task.waits ? h("span", { class: "row-sub wraps" }, oneLine(task.waits)) : null,
    task.until ? h("span", { class: "row-sub wraps" }, `Until ${dayAndTime(task.until)}`) : null,
  );
  const side = h("span", { class: "row-side" }, when);
  return h("li", {}, h("a", { class: "row", href: `#/task/${task.id}` }, stateSign(task.state), main, side));
}

/** @param {HTMLTimeElement} shown */
function showAge(shown) {
  const told = age(shown.dateTime, Date.now());
  if (shown.textContent !== told) shown.textContent = told;
}

/**
 * @param {Session} session
 * @param {Entry} entry
 */
function unsentRow(session, entry) {
  if (entry.frame.type !== "submit") return h("li");
  const refused = entry.state === "refused";
  const { key, prompt } = entry.frame;
  const buttons = h(
    "span",
    { class: "row-buttons" },
    h("a", { class: "button small", href: `#/new?key=${key}` }, "Edit"),
    h("button", { class: "button small quiet", on: { click: () => void session.outbox.dismiss(key) } }, "Delete"),
  );
  const main = h(
    "span",
    { class: "row-main" },
    h("span", { class: "row-title", dir: "auto" }, oneLine(prompt)),
    h("span", { class: refused ? "row-wrong" : "row-sub wraps" }, refused ? `Not taken: ${entry.reason}` : toldOf(entry)),
    refused ? buttons : null,
  );
  return h("li", { class: "row" }, stateSign(refused ? "failed" : "queued"), main);
}

/** @param {Entry} entry */
export function toldOf(entry) {
  return entry.state === "accepted" ? "Sent; the server has it" : "Will be sent as soon as there is a connection";
}

function skeleton() {
  const bones = [1, 2, 3, 4].map(() =>
    h("div", { class: "row ghost" }, h("span", { class: "sign" }), h("span", { class: "bone" })),
  );
  return h("div", { class: "rows", "aria-label": "Loading", role: "status" }, ...bones);
}

function emptyState() {
  const examples = EXAMPLES.map((text) =>
    h("li", {}, h("a", { href: `#/new?${new URLSearchParams({ prompt: text })}` }, text)),
  );
  return h(
    "div",
    { class: "empty" },
    h("h2", {}, "Nothing to do yet"),
    h("p", {}, WHAT_IT_DOES),
    h("p", { class: "dim" }, "For a start:"),
    h("ul", { class: "examples" }, ...examples),
  );
}
