/** A new task. What is wrong is said at the field; without a connection it goes out later. */

import { draft, keepDraft } from "../drafts.js";
import { fill, h } from "../dom.js";
import { bar } from "../parts/bar.js";
import { askedBefore, chosenRules } from "../parts/asking.js";
import { Field, growing, number, plain } from "../parts/field.js";
import { ModelChoice } from "../parts/model.js";
import { toast } from "../parts/toast.js";
import { clean, oneLine } from "../text/clean.js";
import { localTime, shortRepository } from "../text/units.js";

/** @typedef {import("../protocol.js").Budget} Budget */
/** @typedef {import("../protocol.js").Submit} Submit */
/** @typedef {import("../live/outbox.js").Entry} Entry */
/** @typedef {import("../live/session.js").Session} Session */

const ANSWER_MS = 5_000;
/** So long the answer is waited for here; then it is waited for in the list. */
const RECENT_LIMIT = 5;
const LATER = "It will be sent as soon as there is a connection.";

/**
 * @param {{session: Session, go: (hash: string) => void}} context
 * @param {URLSearchParams} given `prompt` to begin with, `fork`: a task to start from, or `key` of one that was not taken
 */
export function newScreen({ session, go }, given) {
  const before = session.outbox.get(given.get("key") ?? "");
  const form = new Form(session, before?.frame.type === "submit" ? before.frame : begun(given));
  if (before?.frame.type === "submit") form.complain(before.field, before.reason);
  const send = async () => {
    form.busy(true); // before anything is awaited: a second tap would make a second task
    const entry = await session.outbox.add(form.written()).catch((error) => form.complain("prompt", error.message));
    if (!entry) return form.busy(false);
    if (before) await session.outbox.dismiss(before.frame.key);
    if (session.state !== "live") return leave(go, "#/", LATER);
    const answer = await answered(session, entry);
    if (answer.state === "accepted") return leave(go, `#/task/${answer.task}`);
    if (answer.state !== "refused") return leave(go, "#/", LATER);
    form.busy(false);
    form.complain(answer.field, answer.reason);
    await session.outbox.dismiss(answer.frame.key);
  };
  form.onSubmit(send);
  return {
    title: "New task",
    node: h("div", { class: "screen" }, bar({ title: "New task", back: "#/" }), form.body, form.dock),
    close() {},
  };
}

/**
 * @param {(hash: string) => void} go
 * @param {string} hash
 * @param {string} [told]
 */
function leave(go, hash, told) {
  keepDraft("new", "");
  if (told) toast(told);
  go(hash);
}

/** What was asked for, else what was begun here before. @param {URLSearchParams} given @returns {Partial<Submit>} */
function begun(given) {
  const [prompt, fork] = [given.get("prompt"), given.get("fork")];
  if (fork) return { fork_of: fork };
  if (prompt) return { prompt };
  try {
    return JSON.parse(draft("new") || "{}");
  } catch {
    return {};
  }
}

/**
 * What the server says to it; the entry as it is where it says nothing in time.
 * @param {Session} session
 * @param {Entry} entry
 * @returns {Promise<Entry>}
 */
function answered(session, entry) {
  const { key } = entry.frame;
  return new Promise((resolve) => {
    const done = (/** @type {Entry} */ found) => {
      off();
      clearTimeout(timer);
      resolve(found);
    };
    const off = session.outbox.changed.on((changed) => {
      if (changed?.frame.key === key && changed.state !== "waiting") done(changed);
    });
    const timer = setTimeout(() => done(session.outbox.get(key) ?? entry), ANSWER_MS);
  });
}

/**
 * @param {Session} session
 * @param {string} task
 */
function forkedFrom(session, task) {
  const title = oneLine(session.list.get(task)?.title ?? "") || task;
  return h("p", { class: "hint" }, "Starts from the work of ", h("a", { href: `#/task/${task}` }, title), ", on a branch of its own. That task stays as it is.");
}

class Form {
  body;
  dock;
  #form;
  #prompt;
  #repository;
  #start;
  #base;
  #model;
  #pullRequest;
  #asking;
  #money;
  #steps;
  #minutes;
  #options;
  /** The task whose work it starts from. */
  #forkOf;
  #wrong = h("p", { class: "wrong", role: "alert" });
  #button = h("button", { class: "button", type: "submit", form: "new-task" }, "Start");

  /**
   * @param {Session} session
   * @param {Partial<Submit>} from
   */
  constructor(session, from) {
    this.#forkOf = from.fork_of ?? "";
    const area = h("textarea", { rows: 5, value: from.prompt ?? "", dir: "auto" });
    area.placeholder = "Say it as you would to a colleague: what, where, and how to know that it is right.";
    this.#prompt = new Field("prompt", "What is to be done?", growing(area));
    this.#repository = new Field("repository", "Repository", address(from.repository ?? recent(session)[0] ?? ""));
    const moment = h("input", { type: "datetime-local", value: from.start_at ? localTime(from.start_at) : "" });
    this.#start = new Field("start_at", "Not before", moment);
    this.#base = new Field("base", "Branch to start from", plain(from.base, "The default branch"));
    this.#model = new ModelChoice(session, from.model ?? "", (me) => me.model ?? "");
    this.#pullRequest = h("input", { type: "checkbox", id: "field-pull_request", checked: from.pull_request !== false });
    this.#asking = askedBefore(from.rules ?? [], "As your settings say");
    this.#money = new Field("budget.money_usd", "Dollars", number(from.budget?.money_usd, "0.01"));
    this.#steps = new Field("budget.steps", "Steps", number(from.budget?.steps, "1"));
    const seconds = from.budget?.wall_seconds;
    this.#minutes = new Field("budget.wall_seconds", "Minutes", number(seconds ? seconds / 60 : seconds, "1"));
    this.#options = this.#more(from);
    this.#form = h(
      "form",
      { class: "form", id: "new-task", on: { input: () => this.#forkOf || keepDraft("new", JSON.stringify(this.written())) } },
      this.#prompt.node,
      ...(this.#forkOf ? [forkedFrom(session, this.#forkOf)] : [this.#repository.node, this.#recents(session)]),
      this.#options,
    );
    this.body = h("main", { class: "body", tabindex: -1 }, this.#form);
    this.dock = h("footer", { class: "dock" }, this.#wrong, this.#button);
    if (!from.prompt && matchMedia("(pointer: fine)").matches) requestAnimationFrame(() => area.focus());
  }

  /** @param {Partial<Submit>} from */
  #more(from) {
    const budget = h(
      "fieldset",
      { class: "budget" },
      h("legend", {}, "Limits of one turn"),
      h("div", { class: "thirds" }, this.#money.node, this.#steps.node, this.#minutes.node),
      h("p", { class: "hint" }, "Left empty, the server's limits hold. At a limit it stops and says so; a message goes on."),
    );
    const offer = h("label", { class: "check" }, this.#pullRequest, "Open a pull request where the host has them");
    const summary = h("summary", {}, "Start, branch, model, approvals, limits");
    const chosen = from.start_at || from.base || from.model || Object.keys(from.budget ?? {}).length || from.rules?.length || from.pull_request === false;
    return h("details", { class: "more", open: Boolean(chosen) }, summary, this.#start.node, this.#forkOf ? null : this.#base.node, this.#model.node, this.#asking.node, offer, budget);
  }

  /** @param {Session} session */
  #recents(session) {
    const choose = (/** @type {string} */ one) => () => {
      this.#repository.input.value = one;
      this.#repository.complain("");
    };
    const chips = recent(session).map((one) =>
      h("button", { class: "chip", type: "button", title: one, on: { click: choose(one) } }, clean(shortRepository(one))),
    );
    return chips.length ? h("div", { class: "chips", role: "group", "aria-label": "Repositories used before" }, ...chips) : null;
  }

  /** @param {() => Promise<void>} send */
  onSubmit(send) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#wrong.textContent = "";
      if (this.#complete()) void send();
    });
  }

  /** What can be said without the server. */
  #complete() {
    if (!this.#prompt.value.trim()) this.complain("prompt", "Say what is to be done.");
    else if (!this.#forkOf && !this.#repository.value.trim()) this.complain("repository", "Give the address of a git repository.");
    else return true;
    return false;
  }

  /** @returns {Omit<Submit, "key">} */
  written() {
    return {
      type: "submit",
      prompt: this.#prompt.value,
      fork_of: this.#forkOf,
      repository: this.#forkOf ? "" : this.#repository.value.trim(),
      start_at: this.#start.value ? new Date(this.#start.value).toISOString() : null,
      base: this.#forkOf ? "" : this.#base.value.trim(),
      model: this.#model.value,
      pull_request: this.#pullRequest.checked,
      budget: this.#budget(),
      rules: chosenRules(this.#asking.select.value),
    };
  }

  #budget() {
    /** @type {Budget} */
    const budget = {};
    if (this.#money.value) budget.money_usd = Number(this.#money.value);
    if (this.#steps.value) budget.steps = Math.round(Number(this.#steps.value));
    if (this.#minutes.value) budget.wall_seconds = Number(this.#minutes.value) * 60;
    return budget;
  }

  /**
   * @param {string} name the field; "" for the whole
   * @param {string} reason
   */
  complain(name, reason) {
    const fields = [this.#prompt, this.#repository, this.#start, this.#base, this.#model.field, this.#money, this.#steps, this.#minutes];
    const field = fields.find((one) => one.input.name === name);
    if (!field) {
      this.#wrong.textContent = reason;
      return;
    }
    if (this.#options.contains(field.node)) this.#options.open = true;
    field.complain(reason);
    requestAnimationFrame(() => field.input.focus());
  }

  /** @param {boolean} sending */
  busy(sending) {
    this.#button.disabled = sending;
    this.#button.textContent = sending ? "Sending…" : "Start";
  }
}

/** Repositories of the newest tasks. @param {Session} session */
function recent(session) {
  const newest = session.list.newest.sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
  return [...new Set(newest.map((task) => task.repository))].slice(0, RECENT_LIMIT);
}

/** @param {string} value */
function address(value) {
  const given = { type: "text", inputmode: "url", autocapitalize: "off", autocomplete: "off", spellcheck: "false" };
  return h("input", { ...given, value, placeholder: "https://github.com/you/project" });
}
