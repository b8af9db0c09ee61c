/** One turn: what was asked, the work, and how it ended. The work of a turn that was over before one came is folded up. */

import { fill, h, say } from "../dom.js";
import { lineCounts } from "../parts/lines.js";
import { icon, stateSign } from "../parts/icons.js";
import { copied } from "../parts/toast.js";
import { clean, oneLine } from "../text/clean.js";
import { link, markdown, webAddress } from "../text/markdown.js";
import { clock, many, seconds, used } from "../text/units.js";
import { ReplyBox } from "./reply.js";
import { WORDS } from "./states.js";
import { isQuiet, Step } from "./step.js";

/** @typedef {import("./fold.js").End} End */
/** @typedef {import("./fold.js").Item} Item */
/** @typedef {import("./fold.js").Turn} Turn */
/** @typedef {import("../protocol.js").Published} Published */
/** @typedef {{node: HTMLElement, item: Item, box: Step | ReplyBox | null}} Drawn */

export class TurnBox {
  node = h("section", { class: "turn" });
  #task;
  /** @type {Drawn[]} */
  #drawn = [];
  #asked = h("div", { class: "asked" });
  #work;
  #workTitle = h("summary");
  #items = h("div", { class: "items" });
  #end = h("div", { class: "outcome-place" });
  /** @type {End | null} */
  #shownEnd = null;

  /**
   * @param {string} task
   * @param {Turn} turn
   */
  constructor(task, turn) {
    this.#task = task;
    this.#work = h("details", { class: "work", open: !turn.end }, this.#workTitle, this.#items);
    if (turn.number > 1) this.node.append(h("h2", { class: "turn-title" }, `Turn ${turn.number}`));
    this.node.append(this.#asked, this.#work, this.#end);
    this.show(turn);
  }

  /** @param {Turn} turn */
  show(turn) {
    turn.items.forEach((item, at) => this.#showItem(item, at));
    this.#work.hidden = !turn.items.some((item) => item.kind !== "said" && !(item.kind === "used" && isQuiet(item)) && !(item.kind === "asked" && item.open));
    this.#showTitle(turn, Date.now());
    if (turn.end && turn.end !== this.#shownEnd) fill(this.#end, outcome(this.#task, turn.end));
    this.#shownEnd = turn.end;
  }

  /**
   * Time passed.
   * @param {Turn} turn
   * @param {number} now
   */
  tick(turn, now) {
    if (turn.end) return;
    this.#showTitle(turn, now);
    for (const { box, item } of this.#drawn) if (box instanceof Step && item.kind === "used" && item.running) box.tick(now);
  }

  /**
   * @param {Turn} turn
   * @param {number} now
   */
  #showTitle(turn, now) {
    const steps = turn.items.filter((item) => (item.kind === "used" || item.kind === "reply") && item.step > 0).length;
    const took = turn.end ? turn.end.seconds : (now - Date.parse(turn.at)) / 1000;
    say(this.#workTitle, `${turn.end ? "Worked" : "At work"} ${clock(took)} · ${many(steps, "step")}`);
  }

  /**
   * @param {Item} item
   * @param {number} at
   */
  #showItem(item, at) {
    const drawn = this.#drawn[at];
    if (drawn?.item === item) return;
    if (drawn) redraw(drawn, item);
    else this.#add(item, draw(item));
  }

  /**
   * @param {Item} item
   * @param {Drawn} drawn
   */
  #add(item, drawn) {
    const isFirst = this.#drawn.every((one) => one.item.kind === "said");
    this.#drawn.push(drawn);
    (item.kind === "said" && isFirst ? this.#asked : this.#items).append(drawn.node);
  }
}

/** @param {Item} item @returns {Drawn} */
function draw(item) {
  if (item.kind === "used") return withBox(item, new Step(item));
  if (item.kind === "reply") return withBox(item, new ReplyBox(item));
  return { node: plainNode(item), item, box: null };
}

/**
 * @param {Item} item
 * @param {Step | ReplyBox} box
 * @returns {Drawn}
 */
function withBox(item, box) {
  return { node: box.node, item, box };
}

/**
 * @param {Drawn} drawn
 * @param {Item} item
 */
function redraw(drawn, item) {
  drawn.item = item;
  if (drawn.box instanceof Step && item.kind === "used") drawn.box.show(item);
  else if (drawn.box instanceof ReplyBox && item.kind === "reply") drawn.box.show(item);
  else {
    const node = plainNode(item);
    drawn.node.replaceWith(node);
    drawn.node = node;
  }
}

/** @param {Item} item @returns {HTMLElement} */
function plainNode(item) {
  switch (item.kind) {
    case "said":
      return h("div", { class: "said", dir: "auto" }, clean(item.text));
    case "note":
      return h("p", { class: `note ${item.level}` }, item.text);
    case "asked":
      return h(
        "div",
        { class: "was-asked", hidden: item.open }, // the card has it
        h("div", { class: "prose", dir: "auto" }, markdown(item.question.text)),
        item.question.input ? h("p", { class: "mono small", dir: "auto" }, oneLine(item.question.input, 200)) : null,
        item.answer === null ? null : h("p", { class: "answer", dir: "auto" }, icon("ok"), h("span", {}, clean(item.answer))),
      );
    default:
      return h("div");
  }
}

/**
 * @param {string} task
 * @param {End} end
 */
function outcome(task, end) {
  return h(
    "div",
    { class: `outcome ${end.outcome}` },
    h("p", { class: "outcome-head" }, stateSign(end.outcome), h("strong", {}, WORDS[end.outcome]), h("span", { class: "dim" }, `in ${seconds(end.seconds)}`)),
    end.reason ? h("div", { class: "prose reason", dir: "auto" }, markdown(end.reason)) : null,
    end.summary ? h("div", { class: "prose", dir: "auto" }, markdown(end.summary)) : null,
    end.published ? published(task, end.published) : h("p", { class: "dim" }, "Nothing was changed."),
    h("p", { class: "dim small" }, `${used(end.usage)} · ${many(end.steps, "step")}`),
  );
}

/**
 * @param {string} task
 * @param {Published} work
 */
function published(task, work) {
  const { branch, files_changed: files = 0, insertions = 0, deletions = 0 } = work;
  const counts = insertions + deletions ? lineCounts(insertions, deletions) : null;
  const changes = h("a", { class: "line-button", href: `#/task/${task}/diff` }, h("span", {}, many(files, "file"), " changed"), counts, icon("next"));
  const copy = () => void copied(branch, "Branch name");
  const place = h("button", { class: "line-button", on: { click: copy } }, icon("branch"), h("span", { class: "mono" }, branch), icon("copy"));
  const pushed = h("p", { class: "dim small" }, "pushed to ", pushedTo(work.pushed_to));
  return h("div", { class: "published" }, work.pull_request ? pullRequest(work.pull_request) : null, changes, place, pushed);
}

/** @param {import("../protocol.js").PullRequest} request */
function pullRequest({ url, number, draft }) {
  const address = webAddress(url);
  if (!address) return null;
  const told = h("span", {}, `${draft ? "Draft pull request" : "Pull request"} #${number}`);
  return h("a", { class: "line-button accent", href: address.href, target: "_blank", rel: "noopener noreferrer" }, told, icon("out"));
}

/** @param {string} remote */
function pushedTo(remote) {
  const address = webAddress(remote.replace(/\.git$/, ""));
  return address ? link(address, clean(remote)) : h("span", { class: "mono" }, clean(remote));
}
