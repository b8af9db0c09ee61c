/**
 * What a watcher sees of one task: a fold of its frames. It mirrors `services/cli/view.py`: the same words, in the same
 * order, but for what was not done. An item that changes is replaced, so that who draws it sees that by comparing. It
 * knows no document.
 */

import { oneLine } from "../text/clean.js";
import { budget, seconds, sum, dayAndTime } from "../text/units.js";
import { describe } from "./calls.js";
import { OUTCOMES } from "./states.js";

/** @typedef {import("../protocol.js").AnyServerFrame} ServerFrame */
/** @typedef {import("../protocol.js").Decision} Decision */
/** @typedef {import("../protocol.js").Decision["events"]} Events */
/** @typedef {import("../protocol.js").JournalEntry} JournalEntry */
/** @typedef {import("../protocol.js").Output} Output */
/** @typedef {import("../protocol.js").Usage} Usage */
/** @typedef {import("../protocol.js").Budget} Budget */
/** @typedef {import("../protocol.js").Published} Published */
/** @typedef {import("../protocol.js").Question} Question */
/** @typedef {import("../protocol.js").TaskState} TaskState */
/** @typedef {"ok" | "failed" | "unknown"} Mark */

/** @typedef {{kind: "said", text: string, at: string}} Said by the user */
/** @typedef {{kind: "note", level: "info" | "warning", text: string}} Note */
/** @typedef {{kind: "asked", question: Question, answer: string | null, open: boolean}} Asked open: it waits for the user */
/**
 * @typedef {object} Reply a model call
 * @property {"reply"} kind
 * @property {number} step
 * @property {boolean} running
 * @property {string} at
 * @property {string} text so far
 * @property {string} thinking so far
 * @property {string} writing a tool call that is being written
 * @property {Usage} usage
 * @property {number} seconds
 * @property {string} lost why there is no answer
 * @property {number} end characters of its output seen, on all channels
 */
/**
 * @typedef {object} Used a tool call
 * @property {"used"} kind
 * @property {number} step
 * @property {boolean} running
 * @property {string} at
 * @property {string} name
 * @property {Record<string, any>} input
 * @property {string} what one line
 * @property {Mark} mark
 * @property {string} note exit code and duration
 * @property {string} text what it answered; while it runs, the end of its output
 * @property {number} dropped bytes left out of a long output
 * @property {number} end
 */
/** @typedef {Said | Note | Asked | Reply | Used} Item */
/**
 * @typedef {object} End
 * @property {TaskState} outcome
 * @property {string} reason
 * @property {string} summary
 * @property {Published | null} published
 * @property {Usage} usage
 * @property {number} seconds
 * @property {number} steps
 */
/** @typedef {{number: number, at: string, items: Item[], end: End | null}} Turn */

const SETUP_STEP = 0;
const PREVIEW_LIMIT_CHARS = 4_000;
const REPLY_LIMIT_CHARS = 200_000;
export const SCRIPTED = "The model is scripted, not Claude.";
export const UNSANDBOXED = "UNSANDBOXED: commands run on the server itself, without a sandbox.";

export class View {
  title = "";
  prompt = "";
  repository = "";
  base = "";
  model = "";
  branch = "";
  sandbox = "";
  /** @type {Budget} */
  budget = {};
  /** @type {string[]} */
  tags = [];
  /** @type {TaskState} */
  state = "queued";
  reason = "";
  delayedUntil = "";
  /** @type {Question | null} */
  question = null;
  /** @type {Published | null} */
  published = null;
  /** @type {{text: string, status: string}[]} */
  plan = [];
  /** @type {string[]} */
  notices = [];
  /** @type {Turn[]} */
  turns = [];
  /** Of the open turn, or the last. */
  steps = 0;
  /** Of the open turn so far. @type {Usage} */
  usage = {};
  /** Of the turns that ended. @type {Usage} */
  usageBefore = {};
  caughtUp = false;
  /** Why there is no such task: its submission was rejected. */
  rejected = "";
  /** A message that opens the next turn. @type {Said[]} */
  #held = [];

  /** @param {string} id */
  constructor(id) {
    this.id = id;
  }

  get turn() {
    return this.turns[this.turns.length - 1];
  }

  get isOpen() {
    return this.turns.length > 0 && !OUTCOMES.has(this.state);
  }

  /** Of the whole task. */
  get total() {
    return sum(this.usageBefore, this.usage);
  }

  /** @param {ServerFrame} frame */
  take(frame) {
    switch (frame.type) {
      case "decision_seen":
        return this.#decided(frame.decision);
      case "journal_seen":
        return this.#journalled(frame.entry);
      case "output_seen":
        return this.#previewed(frame.output);
      case "caught_up":
        this.caughtUp = true;
    }
  }

  // Decisions

  /** @param {Decision} decision */
  #decided(decision) {
    const events = decision.events ?? [];
    const isEnd = events.some((event) => event.type === "turn_ended"); // it tells the reason of its attempt too
    for (const event of events) if (!(isEnd && event.type === "attempt_ended")) this.#event(event, decision.at);
    const receipt = decision.receipt;
    // Of a task that exists it concerns only the device that sent it, which has it in its outbox.
    if (receipt && receipt.status !== "consumed" && !this.turn) this.rejected = oneLine(receipt.reason ?? "");
  }

  /**
   * @param {NonNullable<Events>[number]} event
   * @param {string} at
   */
  #event(event, at) {
    switch (event.type) {
      case "task_submitted":
        this.title = event.title;
        this.prompt = event.prompt;
        this.repository = event.repository;
        this.base = event.base ?? "";
        this.model = event.model ?? "";
        this.budget = event.budget ?? {};
        this.tags = event.tags ?? [];
        this.#newTurn(1, at, [{ kind: "said", text: event.prompt, at }]);
        break;
      case "message_sent":
        this.#said({ kind: "said", text: event.text, at });
        break;
      case "turn_opened":
        this.#newTurn(event.turn, at, this.#held);
        this.#held = [];
        if (event.retries) this.#note("info", `turn ${event.retries} again`);
        break;
      case "budget_set":
        this.budget = event.budget;
        this.#note("info", `a turn may spend ${budget(event.budget)}`);
        break;
      case "priority_set":
        this.#note("info", `its priority is ${event.priority}`);
        break;
      case "attempt_claimed":
        this.#become("running", "");
        if (event.attempt > 1) this.#note("info", `attempt ${event.attempt}, taken by runner ${oneLine(event.runner)}`);
        break;
      case "attempt_ended":
        this.#attemptEnded(event, at);
        break;
      case "task_queued":
        this.#become("queued", event.reason);
        this.#note("info", `queued again: ${oneLine(event.reason)}`);
        break;
      case "task_delayed":
        this.#moved("delayed", event.reason);
        this.delayedUntil = event.until;
        this.#note("warning", `waits until ${dayAndTime(event.until)}: ${oneLine(event.reason)}`);
        break;
      case "task_tagged":
        this.tags = event.tags ?? [];
        break;
      case "task_paused":
        this.#become("paused", event.reason);
        this.#note("info", `held back: ${oneLine(event.reason)}`);
        break;
      case "task_resumed":
        this.#become(this.question ? "waiting" : "running", "");
        this.#note("info", "goes on");
        break;
      case "task_archived":
        this.#note("info", "in the archive");
        break;
      case "task_restored":
        this.#note("info", "out of the archive");
        break;
      case "question_raised":
        this.#moved("waiting", "");
        this.question = event.question;
        this.#add({ kind: "asked", question: event.question, answer: null, open: true });
        break;
      case "question_answered":
        this.#moved("running", "");
        this.question = null;
        if (event.by_deadline) this.#note("info", "nobody answered in time: it goes on with the default");
        this.#answered(event.question, decided(event));
        break;
      case "turn_ended":
        this.#turnEnded(event, at);
        break;
    }
  }

  /**
   * @param {number} number
   * @param {string} at
   * @param {Item[]} items
   */
  #newTurn(number, at, items) {
    this.#become("queued", "");
    this.usage = {};
    this.steps = 0;
    this.plan = [];
    this.turns.push({ number, at, items: [...items], end: null });
  }

  /** @param {Said} said */
  #said(said) {
    if (this.turn?.end) this.#held.push(said);
    else this.#add(said);
  }

  /**
   * @param {import("../protocol.js").AttemptEnded} event
   * @param {string} at
   */
  #attemptEnded(event, at) {
    this.#cutSetupOff(at);
    const reason = event.reason ? `: ${oneLine(event.reason)}` : "";
    // What was cut off by a pause is at rest; the next attempt says how it ended.
    if (event.how === "parked" && this.state === "paused") this.#replace((item) => "running" in item && item.running, settled);
    if (event.how === "parked") this.#note("info", `the sandbox is given back until the task goes on${reason}`);
    if (event.how === "lease_lost") this.#note("warning", `the runner of attempt ${event.attempt} is gone${reason}`);
    if (event.how === "failed") this.#note("warning", `attempt ${event.attempt} failed${reason}`);
  }

  /**
   * @param {string} id
   * @param {string} answer
   */
  #answered(id, answer) {
    this.#replace(
      (item) => item.kind === "asked" && item.question.id === id,
      (item) => ({ .../** @type {Asked} */ (item), answer, open: false }),
    );
  }

  /**
   * @param {import("../protocol.js").TurnEnded} event
   * @param {string} at
   */
  #turnEnded(event, at) {
    const turn = this.turn;
    if (!turn) return;
    this.#cutSetupOff(at);
    this.#settleOpen();
    const took = (Date.parse(at) - Date.parse(turn.at)) / 1000;
    const { outcome, reason = "", summary = "", published = null, usage = {} } = event;
    turn.end = { outcome, reason, summary, published, usage, seconds: took, steps: this.steps };
    this.usageBefore = sum(this.usageBefore, usage);
    this.usage = {};
    this.question = null;
    this.published = published ?? this.published;
    this.#become(outcome, reason);
  }

  /** It is not settled by anybody. @param {string} at */
  #cutSetupOff(at) {
    this.#replace(isSetup, (item) => {
      const setup = /** @type {Used} */ (item);
      return { ...setup, running: false, mark: "unknown", note: `cut off · ${seconds((Date.parse(at) - Date.parse(setup.at)) / 1000)}` };
    });
  }

  /** What nobody will finish or answer any more. */
  #settleOpen() {
    this.#replace((item) => ("running" in item && item.running) || ("open" in item && item.open), settled);
  }

  /**
   * @param {TaskState} state
   * @param {string} reason
   */
  #become(state, reason) {
    this.state = state;
    this.reason = reason;
  }

  /**
   * Only the user moves a paused task on.
   * @param {TaskState} state
   * @param {string} reason
   */
  #moved(state, reason) {
    if (this.state !== "paused") this.#become(state, reason);
  }

  // Journal

  /** @param {JournalEntry} entry */
  #journalled(entry) {
    const event = entry.event;
    switch (event.type) {
      case "attempt_started":
        return this.#started(event, entry.attempt);
      case "sandbox_restored": {
        const anew = inNewSandbox(event.restored_step);
        return this.#note("warning", `The sandbox ended: ${oneLine(event.reason)}. The work goes on ${anew}.`);
      }
      case "step_started":
        return this.#stepStarted(event, entry.at);
      case "step_finished":
        return this.#stepFinished(event);
      case "setup_started":
        return this.#setupStarted(event.script, entry.at);
      case "setup_finished":
        return this.#setupFinished(event);
      case "noticed":
        return this.#note(event.level === "warning" ? "warning" : "info", oneLine(event.text));
      case "host_refused":
        return this.#note("warning", `Network: ${oneLine(event.reason)}`);
    }
  }

  /**
   * @param {import("../protocol.js").AttemptStarted} started
   * @param {number} attempt
   */
  #started(started, attempt) {
    this.model = started.model;
    this.branch = started.branch;
    this.sandbox = started.sandbox;
    const warnings = [started.scripted && SCRIPTED, started.sandbox === "unsandboxed" && UNSANDBOXED];
    for (const warning of warnings) if (warning && !this.notices.includes(warning)) this.notices = [...this.notices, warning];
    if (started.sandbox_kept) this.#note("info", "in the same sandbox, as it was");
    else if (attempt > 1 || started.restored_step) this.#note("info", inNewSandbox(started.restored_step));
  }

  /**
   * @param {import("../protocol.js").StepStarted} event
   * @param {string} at
   */
  #stepStarted({ step, action }, at) {
    this.steps += 1;
    const common = { step, running: true, at, end: 0 };
    if (action.type === "model_call") {
      this.#add({ ...common, kind: "reply", text: "", thinking: "", writing: "", usage: {}, seconds: 0, lost: "" });
      return;
    }
    if (action.name === "todo") this.plan = planOf(action.input);
    const what = describe(action.name, action.input);
    const { name, input } = action;
    this.#add({ ...common, kind: "used", name, input, what, mark: "ok", note: "", text: "", dropped: 0 });
  }

  /** @param {import("../protocol.js").StepFinished} event */
  #stepFinished(event) {
    const { result, duration_seconds: took = 0 } = event;
    if (result.type === "model_reply" || result.type === "step_lost") this.usage = sum(this.usage, result.usage ?? {});
    this.#replace(
      (item) => (item.kind === "reply" || item.kind === "used") && item.step === event.step,
      (item) => (item.kind === "reply" ? replied(item, result, took) : used(/** @type {Used} */ (item), result, took)),
    );
  }

  /**
   * @param {string} script
   * @param {string} at
   */
  #setupStarted(script, at) {
    const what = `set-up: ${oneLine(script)}`;
    const common = { step: SETUP_STEP, running: true, at, end: 0, mark: /** @type {Mark} */ ("ok"), note: "", text: "", dropped: 0 };
    this.#add({ ...common, kind: "used", name: "setup", input: {}, what });
  }

  /** @param {import("../protocol.js").SetupFinished} event */
  #setupFinished({ reason = "", output = "", exit_code = null, duration_seconds: took = 0 }) {
    const note = exit_code ? `exit ${exit_code} · ${seconds(took)}` : seconds(took);
    const ended = { running: false, end: 0, mark: /** @type {Mark} */ (reason ? "failed" : "ok"), note, text: output };
    this.#replace(isSetup, (item) => ({ .../** @type {Used} */ (item), ...ended }));
  }

  // Output

  /** @param {Output} output */
  #previewed(output) {
    this.#replace(
      (item) => (item.kind === "reply" || item.kind === "used") && item.running && item.step === output.step,
      (item) => previewed(/** @type {Reply | Used} */ (item), output),
    );
  }

  // Items

  /** @param {Item} item */
  #add(item) {
    this.turn?.items.push(item);
  }

  /**
   * @param {Note["level"]} level
   * @param {string} text
   */
  #note(level, text) {
    this.#add({ kind: "note", level, text });
  }

  /**
   * In the open turn and the one before: steps of a lost attempt are settled late.
   * @param {(item: Item) => boolean} is
   * @param {(item: Item) => Item} after
   */
  #replace(is, after) {
    for (const turn of this.turns.slice(-2)) {
      for (let at = turn.items.length - 1; at >= 0; at -= 1) {
        const item = turn.items[at];
        if (item && is(item)) turn.items[at] = after(item);
      }
    }
  }
}

/** How a question was answered, in words. @param {import("../protocol.js").QuestionAnswered} event */
function decided({ approved = null, text = "" }) {
  if (approved === null) return text;
  return approved ? "Approved" : text ? `Denied: ${text}` : "Denied";
}

/** As the terminal says it, in services/cli/view.py. */
function inNewSandbox(restoredStep = 0) {
  return `in a new sandbox, ${restoredStep ? `restored as after step ${restoredStep}` : "from the start"}`;
}

/** @param {Item} item that is not over */
function isSetup(item) {
  return item.kind === "used" && item.step === SETUP_STEP && item.running;
}

/** @param {Item} item @returns {Item} */
function settled(item) {
  if (item.kind === "used") return { ...item, running: false, mark: "unknown" };
  if (item.kind === "reply") return { ...item, running: false, writing: "" };
  return item.kind === "asked" ? { ...item, open: false } : item;
}

/**
 * @param {Reply} reply
 * @param {import("../protocol.js").StepFinished["result"]} result
 * @param {number} took
 * @returns {Reply}
 */
function replied(reply, result, took) {
  const ended = { ...reply, running: false, writing: "", seconds: took };
  if (result.type === "step_lost") return { ...ended, usage: result.usage ?? {}, lost: oneLine(result.reason) };
  if (result.type !== "model_reply") return ended;
  return { ...ended, usage: result.usage, text: textOf(result.content, "text"), thinking: textOf(result.content, "thinking") };
}

/**
 * @param {Record<string, any>[]} content
 * @param {"text" | "thinking"} type
 */
function textOf(content, type) {
  const texts = content.filter((block) => block.type === type).map((block) => block[type]);
  return texts.filter((text) => typeof text === "string").join("\n\n").trim();
}

/**
 * @param {Used} call
 * @param {import("../protocol.js").StepFinished["result"]} result
 * @param {number} took
 * @returns {Used}
 */
function used(call, result, took) {
  const ended = { ...call, running: false, end: 0, note: seconds(took) };
  if (result.type === "step_lost") return { ...ended, mark: "unknown", text: result.reason };
  if (result.type !== "tool_result") return ended;
  const exit = result.exit_code ?? 0;
  const failed = result.is_error || exit !== 0;
  const note = exit !== 0 ? `exit ${exit} · ${ended.note}` : ended.note;
  return { ...ended, mark: failed ? "failed" : "ok", note, text: result.text, dropped: result.dropped_bytes ?? 0 };
}

/**
 * A piece that was seen already is left out; one that was dropped leaves a hole, which the step's end will fill.
 * @param {Reply | Used} item
 * @param {Output} output
 * @returns {Reply | Used}
 */
function previewed(item, output) {
  const channel = output.channel ?? "text";
  const characters = [...output.text]; // the server counts characters, not UTF-16 units
  const seen = item.end;
  const end = output.offset + characters.length;
  if (end <= seen) return item;
  const hole = output.offset > seen ? "…" : "";
  const piece = hole + characters.slice(Math.max(0, seen - output.offset)).join("");
  if (item.kind === "used") return { ...item, end, text: (item.text + piece).slice(-PREVIEW_LIMIT_CHARS) };
  if (channel === "input") return { ...item, end, writing: (item.writing + piece).slice(-PREVIEW_LIMIT_CHARS) };
  const field = channel === "thinking" ? "thinking" : "text";
  return { ...item, end, writing: "", [field]: (item[field] + piece).slice(-REPLY_LIMIT_CHARS) };
}

/** @param {Record<string, any>} input */
function planOf(input) {
  const items = Array.isArray(input.items) ? input.items : [];
  return items
    .filter((item) => item && typeof item === "object")
    .map((item) => ({ text: oneLine(String(item.text ?? "")), status: String(item.status ?? "") }));
}
