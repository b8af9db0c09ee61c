/** One task, live. */

import { fill, h, say } from "../dom.js";
import { bar } from "../parts/bar.js";
import { confirmed } from "../parts/confirm.js";
import { icon, ring } from "../parts/icons.js";
import { toast } from "../parts/toast.js";
import { Dock } from "../task/dock.js";
import { WORDS } from "../task/states.js";
import { TurnBox } from "../task/turn.js";
import { clean, oneLine } from "../text/clean.js";
import { clock, count, money, shortRepository, dayAndTime, tokens } from "../text/units.js";

/** @typedef {import("../live/session.js").Session} Session */
/** @typedef {import("../task/fold.js").View} View */
/** @typedef {import("../task/log.js").TaskLog} TaskLog */

const DRAW_MS = 80;
/** Between two drawings of what streams in. */
const CLOCK_MS = 1_000;
const NEAR_PX = 60;

/**
 * @param {{session: Session}} context
 * @param {string} task
 */
export function taskScreen({ session }, task) {
  const screen = new TaskScreen(session, task);
  return { title: session.list.get(task)?.title ?? "Task", node: screen.node, close: () => screen.close() };
}

class TaskScreen {
  node;
  #session;
  #task;
  #title;
  #word = h("span", { class: "word", role: "status" });
  #spent = [h("span"), h("span"), h("span")];
  #stop;
  #pause;
  #about = h("div", { class: "about" });
  #facts = "";
  /** @type {View["plan"]} */
  #shownPlan = [];
  #plan = h("details", { class: "plan", hidden: true });
  #planTitle = h("summary");
  #planItems = h("ol");
  #feed = h("div", { class: "feed", "aria-busy": "true" });
  #held = h("p", { class: "thinking held" });
  #body;
  #newest;
  #dock;
  /** @type {TurnBox[]} */
  #turns = [];
  /** @type {TaskLog | null} */
  #log = null;
  /** @type {(() => void)[]} */
  #offs = [];
  #drawing = 0;
  #following = true;
  #closed = false;

  /**
   * @param {Session} session
   * @param {string} task
   */
  constructor(session, task) {
    this.#session = session;
    this.#task = task;
    this.#stop = h("button", { class: "button small stop", hidden: true, on: { click: () => void this.#cancel() } }, icon("stop"), "Stop");
    this.#pause = h("button", { class: "round small", hidden: true, "aria-label": "Pause", on: { click: () => void this.#hold() } }, icon("paused"));
    this.#plan.append(this.#planTitle, this.#planItems);
    this.#body = h("main", { class: "body", tabindex: -1, on: { scroll: () => this.#scrolled() } }, this.#about, this.#feed, this.#held);
    this.#newest = h("button", { class: "round newest", hidden: true, "aria-label": "To the newest", on: { click: () => this.#toEnd() } }, icon("down"));
    this.#dock = new Dock(session, task);
    const below = h("p", { class: "sub" }, this.#word, ...this.#spent);
    const head = bar({ title: oneLine(session.list.get(task)?.title ?? "") || "Task", back: "#/", below, actions: [this.#pause, this.#stop] });
    this.#title = head.getElementsByTagName("h1").item(0);
    this.node = h("div", { class: "screen task" }, head, this.#plan, this.#body, h("div", { class: "newest-place" }, this.#newest), this.#dock.node);
    const ticking = setInterval(() => this.#tick(), CLOCK_MS);
    this.#offs.push(() => clearInterval(ticking), session.outbox.changed.on(() => this.#drawSoon()), session.stateChanged.on(() => this.#drawSoon()));
    void this.#watch();
  }

  async #watch() {
    const log = await this.#session.watch(this.#task);
    if (this.#closed) return this.#session.leave(this.#task);
    this.#log = log;
    this.#offs.push(log.changed.on(() => this.#drawSoon()));
    this.#draw();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#drawing);
    for (const off of this.#offs) off();
    if (this.#log) this.#session.leave(this.#task);
  }

  // Drawing

  #drawSoon() {
    this.#drawing ||= setTimeout(() => this.#draw(), DRAW_MS);
  }

  #draw() {
    this.#drawing = 0;
    const log = this.#log;
    if (!log) return;
    const { view } = log;
    const missing = log.refused || (view.rejected && `This task was not taken: ${view.rejected}`);
    if (missing && !view.turns.length) return this.#showMissing(missing);
    if (!view.turns.length) return this.#showWaiting(view);
    const isFirst = this.#turns.length === 0;
    if (isFirst) fill(this.#feed);
    this.#showHead(view);
    this.#showPlan(view);
    view.turns.forEach((turn, at) => {
      const drawn = this.#turns[at];
      if (drawn) drawn.show(turn);
      else this.#addTurn(new TurnBox(this.#task, turn));
    });
    this.#dock.show(view);
    this.#feed.setAttribute("aria-busy", String(!view.caughtUp));
    if (this.#following || isFirst) this.#toEnd();
  }

  /** @param {TurnBox} turn */
  #addTurn(turn) {
    this.#turns.push(turn);
    this.#feed.append(turn.node);
  }

  /** @param {View} view */
  #showHead(view) {
    if (this.#title) say(this.#title, oneLine(view.title) || "Task");
    document.title = `${oneLine(view.title, 60)} · Errand`;
    say(this.#word, WORDS[view.state]);
    this.#word.className = `word ${view.state}`;
    const stopping = this.#isSent("cancel");
    this.#stop.hidden = !view.isOpen;
    this.#stop.disabled = stopping;
    this.#pause.hidden = !view.isOpen || view.state === "paused";
    this.#pause.disabled = stopping || this.#isSent("pause");
    this.#showSpent(view, Date.now());
    say(this.#held, heldBack(view, this.#session.list.get(this.#task)?.waits ?? ""));
    const { money_usd: limit } = view.budget;
    const tags = view.tags.map((tag) => `#${tag}`);
    const facts = [shortRepository(view.repository), view.base, view.model, ...tags, limit ? `at most ${money(limit)} a turn` : ""];
    if (facts.join() === this.#facts) return;
    this.#facts = facts.join();
    fill(this.#about, ...facts.filter(Boolean).map((fact) => h("span", {}, clean(fact))));
  }

  /**
   * @param {View} view
   * @param {number} now
   */
  #showSpent({ total, turn, isOpen }, now) {
    const time = turn && isOpen ? clock((now - Date.parse(turn.at)) / 1000) : "";
    const facts = [time, money(total.cost_usd ?? 0), `${count(tokens(total))} tokens`];
    this.#spent.forEach((node, at) => say(node, facts[at] ? `· ${facts[at]}` : ""));
  }

  /** @param {View} view */
  #showPlan({ plan, isOpen }) {
    this.#plan.hidden = !isOpen || plan.length === 0;
    if (plan === this.#shownPlan) return;
    this.#shownPlan = plan;
    const done = plan.filter((item) => item.status === "done").length;
    const now = plan.find((item) => item.status === "in_progress")?.text ?? "";
    say(this.#planTitle, `Plan ${done}/${plan.length}${now ? `: ${now}` : ""}`);
    fill(this.#planItems, ...plan.map((item) => h("li", { class: item.status }, icon(item.status === "done" ? "ok" : item.status === "in_progress" ? "next" : ""), h("span", {}, item.text))));
  }

  /** Nothing of it is here yet. @param {View} view */
  #showWaiting(view) {
    const offline = this.#session.state === "live" ? "" : "This task was not opened on this device before: it comes with the next connection.";
    fill(this.#feed, h("div", { class: "loading" }, ring(), h("p", {}, offline)));
    this.#dock.show(view);
  }

  /** @param {string} reason */
  #showMissing(reason) {
    fill(this.#feed, h("div", { class: "empty" }, h("h2", {}, "Not here"), h("p", {}, reason), h("a", { class: "button", href: "#/" }, "All tasks")));
    this.#dock.node.hidden = true;
  }

  #tick() {
    const view = this.#log?.view;
    if (!view?.turn || !view.isOpen) return;
    this.#turns[this.#turns.length - 1]?.tick(view.turn, Date.now());
    this.#showSpent(view, Date.now());
  }

  // Following the end

  #scrolled() {
    const { scrollTop, clientHeight, scrollHeight } = this.#body;
    this.#following = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.#newest.hidden = this.#following;
  }

  #toEnd() {
    this.#body.scrollTop = this.#body.scrollHeight;
    this.#following = true;
  }

  // Stopping and holding back

  /** @param {"cancel" | "pause"} type */
  #isSent(type) {
    return this.#session.outbox.of(this.#task).some((entry) => entry.frame.type === type && entry.state !== "refused");
  }

  /** Nothing is lost by it, so nothing is asked. */
  async #hold() {
    await this.#session.outbox.add({ type: "pause", task: this.#task }).catch((error) => toast(error.message));
  }

  async #cancel() {
    const text = "The turn ends now. What it did is not pushed; with a message you can go on from there.";
    const sure = await confirmed({ title: "Stop this task?", text, yes: "Stop it" });
    if (sure) await this.#session.outbox.add({ type: "cancel", task: this.#task }).catch((error) => toast(error.message));
  }
}

/**
 * Why nothing moves, where that is nobody's fault.
 * @param {View} view
 * @param {string} waits as the scheduler said when it was asked for the list
 */
function heldBack({ state, delayedUntil }, waits) {
  if (state === "queued") return waits ? `${oneLine(waits)}…` : "Waits for a free runner…";
  if (state === "delayed") return `Waits until ${dayAndTime(delayedUntil)}`;
  return state === "paused" ? "Held back by you. What it did is saved." : "";
}
