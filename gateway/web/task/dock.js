/** The bottom of a task: the open question, what is on its way, and where one writes. */

import { draft, keepDraft } from "../drafts.js";
import { fill, h } from "../dom.js";
import { growing } from "../parts/field.js";
import { icon } from "../parts/icons.js";
import { Keyed } from "../parts/keyed.js";
import { toast } from "../parts/toast.js";
import { clean, oneLine } from "../text/clean.js";
import { markdown } from "../text/markdown.js";
import { count, money, seconds } from "../text/units.js";
import { Offer } from "./offer.js";

/** @typedef {import("../live/outbox.js").Entry} Entry */
/** @typedef {import("../live/session.js").Session} Session */
/** @typedef {import("../protocol.js").Question} Question */
/** @typedef {import("./fold.js").View} View */
/** @typedef {{told: string, budget: import("../protocol.js").Budget}} More */

const PLACEHOLDERS = {
  waiting: "Or answer in your own words",
  deciding: "Or deny, and say what to do instead",
  open: "Tell it something while it works",
  paused: "It reads this when it goes on",
  over: "Go on with…",
};

const DECIDE_AFTER_MS = 500;

export class Dock {
  node;
  #session;
  #task;
  #card = h("div", { class: "card-place", "aria-live": "polite" });
  #pending = h("ul", { class: "pending", "aria-label": "On its way" });
  /** @type {Keyed<Entry>} */
  #rows = new Keyed(this.#pending, (entry) => entry.frame.key, (entry) => this.#pendingRow(entry));
  #area = h("textarea", { rows: 1, dir: "auto", "aria-label": "Message" });
  #send = h("button", { class: "round accent", type: "submit", "aria-label": "Send" }, icon("send"));
  /** @type {Question | null} */
  #question = null;
  /** The question that was answered here; the card goes at once. */
  #answered = "";
  /** What is offered to go on with after a limit. */
  #more = "";
  #saying = false;
  #taps;

  /**
   * @param {Session} session
   * @param {string} task
   */
  constructor(session, task) {
    this.#session = session;
    this.#task = task;
    this.#taps = new Offer(session, task);
    this.#area.value = draft(task);
    this.#area.addEventListener("input", () => this.#typed());
    this.#area.addEventListener("keydown", (event) => this.#key(event));
    const form = h("form", { class: "composer" }, growing(this.#area), this.#send);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#say(this.#area.value);
    });
    this.node = h("footer", { class: "dock" }, this.#card, this.#taps.node, this.#pending, form);
    this.#typed();
  }

  /** @param {View} view */
  show(view) {
    const question = view.question && view.question.id !== this.#answered ? view.question : null;
    const more = question || view.isOpen ? null : twice(view.turn?.end?.reason ?? "");
    if (question !== this.#question || more?.told !== this.#more) this.#ask(question, more);
    this.#area.placeholder = PLACEHOLDERS[!question ? (view.state === "paused" ? "paused" : view.isOpen ? "open" : "over") : needsWords(question) ? "waiting" : "deciding"];
    this.#taps.show(view.turns.length ? view.state : "");
    this.#showPending();
  }

  #showPending() {
    const entries = this.#session.outbox.of(this.#task);
    this.#rows.show(entries);
    this.#pending.hidden = entries.length === 0;
    const refused = entries.find((entry) => entry.state === "refused" && "question" in entry.frame);
    if (refused) this.#answered = "";
  }

  /** @param {Entry} entry */
  #pendingRow(entry) {
    const { frame, state, reason } = entry;
    const text = saidBy(frame);
    const told = state === "refused" ? `Not done: ${reason}` : state === "accepted" ? "Sent" : "Will be sent as soon as there is a connection";
    const dismiss = () => void this.#session.outbox.dismiss(frame.key);
    return h(
      "li",
      { class: state === "refused" ? "wrong" : "" },
      icon(state === "refused" ? "failed" : state === "accepted" ? "ok" : "clock"),
      h("span", { class: "pending-main" }, h("span", { dir: "auto" }, text), h("span", { class: "pending-told" }, told)),
      state === "refused" && "text" in frame ? h("button", { class: "button small quiet", on: { click: () => this.#takeBack(entry) } }, "Edit") : null,
      state === "refused" ? h("button", { class: "round small", "aria-label": "Dismiss", on: { click: dismiss } }, icon("close")) : null,
    );
  }

  /** What was refused, to be written anew. @param {Entry} entry */
  #takeBack(entry) {
    if ("text" in entry.frame) this.#area.value = entry.frame.text;
    this.#area.dispatchEvent(new Event("input"));
    void this.#session.outbox.dismiss(entry.frame.key);
    this.#area.focus();
  }

  /**
   * @param {Question | null} question
   * @param {More | null} [more]
   */
  #ask(question, more = null) {
    this.#question = question;
    this.#more = more?.told ?? "";
    if (!question) return fill(this.#card, more && this.#offer(more));
    const text = h("div", { class: "prose", id: "question", dir: "auto", tabindex: 0 }, markdown(question.text));
    const input = question.input ? h("pre", { class: "asked-input mono", dir: "auto", tabindex: 0 }, clean(question.input)) : null;
    const buttons = needsWords(question) ? this.#choices(question) : this.#decisions(question);
    fill(this.#card, h("section", { class: "card", "aria-label": "Question" }, h("h2", {}, "Needs you"), text, input, buttons));
  }

  /** A limit has ended the turn. @param {More} more */
  #offer({ told, budget }) {
    const goOn = async () => {
      button.disabled = true;
      await this.#put({ type: "change_budget", task: this.#task, budget }, "", null);
      await this.#put({ type: "retry", task: this.#task }, "", null);
    };
    const button = h("button", { class: "button quiet", on: { click: () => void goOn() } }, told);
    return button;
  }

  /** @param {Question} question */
  #choices(question) {
    const choices = (question.choices ?? []).map((choice) =>
      h("button", { class: "button choice", dir: "auto", on: { click: () => void this.#say(choice) } }, clean(choice)),
    );
    return h("div", { class: "choices" }, ...choices);
  }

  /** @param {Question} question */
  #decisions(question) {
    const answers = { task: this.#task, question: question.id };
    const approve = h("button", { class: "button", on: { click: () => void this.#put({ type: "approve", ...answers }, "", question) } }, "Approve");
    const deny = h("button", { class: "button quiet", on: { click: () => void this.#put({ type: "deny", ...answers }, "", question) } }, "Deny");
    // The second tap of two on the card before is no approval of this one.
    approve.disabled = true;
    setTimeout(() => (approve.disabled = false), DECIDE_AFTER_MS);
    return h("div", { class: "decisions" }, deny, approve);
  }

  /** @param {string} text */
  async #say(text) {
    const question = this.#question;
    if (!text.trim()) return;
    if (!question) return this.#put({ type: "say", task: this.#task, text }, text, null);
    const answers = { task: this.#task, question: question.id };
    await this.#put(needsWords(question) ? { type: "answer", ...answers, text } : { type: "deny", ...answers, reason: text }, text, question);
  }

  /**
   * It leaves the screen once it is stored.
   * @param {import("../live/outbox.js").Written} written
   * @param {string} text
   * @param {Question | null} question
   */
  async #put(written, text, question) {
    if (this.#saying) return;
    this.#saying = true;
    try {
      await this.#session.outbox.add(written);
      this.#said(text, question);
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error));
    }
    this.#saying = false;
  }

  /**
   * @param {string} text
   * @param {Question | null} question that it answers
   */
  #said(text, question) {
    if (question) {
      this.#answered = question.id;
      this.#ask(null);
    }
    if (text === this.#area.value) this.#area.value = "";
    this.#area.dispatchEvent(new Event("input"));
  }

  #typed() {
    keepDraft(this.#task, this.#area.value);
    this.#send.disabled = !this.#area.value.trim();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const wanted = event.metaKey || event.ctrlKey || (!event.shiftKey && matchMedia("(pointer: fine)").matches);
    if (event.key !== "Enter" || !wanted || event.isComposing) return;
    event.preventDefault();
    void this.#say(this.#area.value);
  }
}

/**
 * What to offer a turn that came to a limit: the double of it.
 * @param {string} reason as `agents/budget.py` says it
 * @returns {More | null}
 */
function twice(reason) {
  const [, dollars, number = "", unit = ""] = /reached its limit of (?:\$([\d.e+]+)|([\d,]+) (tokens|steps|s)\b)/.exec(reason) ?? [];
  const limit = 2 * Number(dollars ?? number.replaceAll(",", ""));
  if (!limit) return null;
  if (dollars) return { told: `Go on with ${money(limit)} a turn`, budget: { money_usd: limit } };
  if (unit === "s") return { told: `Go on with ${seconds(limit)} a turn`, budget: { wall_seconds: limit } };
  return { told: `Go on with ${count(limit)} ${unit} a turn`, budget: { [unit]: limit } };
}

/** Whether it is answered in words, or by a yes or a no. @param {Question} question */
function needsWords({ kind = "answer" }) {
  return kind === "answer";
}

/** @param {Entry["frame"]} frame */
function saidBy(frame) {
  if (frame.type === "cancel") return "Stop";
  if (frame.type === "change_budget") return "A larger limit";
  if (frame.type === "pause") return "Pause";
  if (frame.type === "resume") return "Let it go on";
  if (frame.type === "retry") return "Try again";
  if (frame.type === "approve") return "Approve";
  if (frame.type === "deny") return frame.reason ? `Deny: ${oneLine(frame.reason, 120)}` : "Deny";
  return "text" in frame ? oneLine(frame.text, 120) : "";
}
