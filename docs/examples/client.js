// A whole client of Errand: sign in by a link once, then send a task and follow it to its branch. Node 22 or newer; no package.
//
//     node client.js 'http://127.0.0.1:8420/#code=…'        # the link that `errand up` shows
//     node client.js https://github.com/you/project 'Fix the failing test'
//
// It has what every client needs: an idempotency key for each command, which is sent again until it is accepted; a cursor, so
// that after a break nothing is missed and nothing comes twice; a pause before each reconnect. See docs/client.md.

/**
 * @import { AnyClientFrame, AnyServerFrame, AnyJournalEvent, AnyTaskEvent } from "../../gateway/web/protocol.js"
 * @import { Failure, Question, SignedInDevice, Submit } from "../../gateway/web/protocol.js"
 */

import { readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { createInterface } from "node:readline/promises";
import { setTimeout as sleep } from "node:timers/promises";

const ACCOUNT = process.env.ERRAND_CLIENT ?? "errand-client.json";

/** Exchange the link's one-time code for a token of this device's own, and keep it where only we can read it. */
async function signIn(/** @type {string} */ link) {
  const { origin, hash } = new URL(link);
  const body = { code: new URLSearchParams(hash.slice(1)).get("code"), device_name: hostname() };
  const answer = await fetch(`${origin}/api/sign-in`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const { token, error } = /** @type {SignedInDevice & Failure} */ (await answer.json());
  if (!answer.ok) throw new Error(error);
  writeFileSync(ACCOUNT, JSON.stringify({ server: origin, token }), { mode: 0o600 });
  console.log(`Signed in to ${origin}.`);
}

/** One task, over as many connections as it takes. */
class Client {
  /** What the server has not accepted yet, by key. @type {Map<string, AnyClientFrame>} */
  outbox = new Map();
  task = "";
  /** The sequence of the last event that we saw. */
  cursor = 0;
  /** @type {Question | null} */
  question = null;
  pause = 500;
  isLive = false;
  /** @type {number | null} */
  exitCode = null;

  constructor(/** @type {{server: string, token: string}} */ account, /** @type {Submit} */ submit) {
    this.account = account;
    this.outbox.set(submit.key, submit);
  }

  async run() {
    while (this.exitCode === null) {
      await this.converse();
      if (this.exitCode !== null) break;
      await sleep(this.pause * (0.5 + Math.random())); // not every client of a server at the same moment
      this.pause = Math.min(this.pause * 2, 30_000);
    }
    return this.exitCode;
  }

  /** One connection, until it ends. @returns {Promise<void>} */
  converse() {
    this.isLive = false;
    const socket = (this.socket = new WebSocket(this.account.server.replace("http", "ws") + "/api/live"));
    socket.onopen = () => this.send({ type: "sign_in", token: this.account.token });
    socket.onmessage = ({ data }) => this.take(JSON.parse(data));
    return new Promise((resolve) => {
      socket.onclose = ({ code }) => {
        if (this.exitCode === null) console.error(`The connection broke (${code}).`);
        resolve();
      };
    });
  }

  take(/** @type {AnyServerFrame} */ frame) {
    switch (frame.type) {
      case "signed_in":
        for (const notice of frame.notices ?? []) console.error(notice);
        this.watch();
        for (const command of this.outbox.values()) this.send(command);
        break;
      case "accepted":
        this.outbox.delete(frame.key);
        if (!this.task) {
          this.task = frame.task;
          console.log(`Task ${this.task}`);
          this.watch();
        }
        break;
      case "caught_up":
        this.pause = 500;
        this.isLive = true;
        break;
      case "decision_seen":
        this.cursor = frame.sequence;
        for (const event of frame.decision.events ?? []) this.see(event);
        break;
      case "journal_seen":
        this.cursor = frame.sequence;
        this.see(frame.entry.event);
        break;
      case "receipt_seen":
        if (frame.receipt.status === "rejected") console.error(`Rejected: ${frame.receipt.reason}`);
        break;
      case "refused":
        if (frame.code === "unavailable") this.socket?.close(); // and again after the pause, with the same key
        else this.end(1, frame.reason);
        break;
      case "closing":
        if (frame.come_back === false) this.end(1, frame.reason);
        break;
    }
    // Not while the past is replayed: the question may be answered in there.
    if (this.isLive && this.question) this.ask(this.question);
  }

  see(/** @type {AnyTaskEvent | AnyJournalEvent} */ event) {
    if (event.type === "step_started" && event.action.type === "tool_call") {
      console.log(event.action.name, JSON.stringify(event.action.input).slice(0, 100));
    } else if (event.type === "question_raised") {
      this.question = event.question;
    } else if (event.type === "question_answered") {
      this.question = null;
    } else if (event.type === "turn_ended") {
      console.log(`${event.outcome}: ${event.summary || event.reason}`);
      const branch = event.published?.branch ?? "none, nothing was changed";
      this.end(event.outcome === "succeeded" ? 0 : 1, `Branch: ${branch}`);
    }
  }

  async ask(/** @type {Question} */ { id, text, choices }) {
    this.question = null;
    const terminal = createInterface({ input: process.stdin, output: process.stdout });
    const said = await terminal.question(`${text} ${(choices ?? []).join(" / ")}\n> `);
    terminal.close();
    const key = crypto.randomUUID();
    /** @type {AnyClientFrame} */
    const answer = { type: "answer", key, task: this.task, question: id, text: said };
    this.outbox.set(key, answer);
    this.send(answer);
  }

  watch() {
    if (this.task) this.send({ type: "watch_task", task: this.task, cursor: this.cursor, output: false });
  }

  /** What cannot be sent now waits in the outbox. */
  send(/** @type {AnyClientFrame} */ frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  end(/** @type {number} */ exitCode, /** @type {string} */ text) {
    (exitCode ? console.error : console.log)(text);
    this.exitCode = exitCode;
    this.socket?.close();
  }
}

const [linkOrRepository, prompt] = process.argv.slice(2);
if (prompt === undefined) {
  await signIn(linkOrRepository);
} else {
  /** @type {Submit} */
  const submit = { type: "submit", key: crypto.randomUUID(), repository: linkOrRepository, prompt };
  process.exitCode = await new Client(JSON.parse(readFileSync(ACCOUNT, "utf8")), submit).run();
}
