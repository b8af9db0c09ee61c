/** The page's start: who is signed in, which screen the address names, and what stands on every screen. */

import { fill, h, say } from "./dom.js";
import { forget, known, onOtherTab } from "./live/account.js";
import { Database } from "./live/database.js";
import { Session } from "./live/session.js";
import { diffScreen } from "./screens/diff.js";
import { listScreen } from "./screens/list.js";
import { newScreen } from "./screens/new.js";
import { settingsScreen } from "./screens/settings.js";
import { signInScreen } from "./screens/signin.js";
import { taskScreen } from "./screens/task.js";
import { oneLine } from "./text/clean.js";

/** @typedef {import("./live/account.js").Account} Account */
/** @typedef {{title: string, node: Element, close: () => void}} Screen */

const QUIET_MS = 1_500;
/** So long a broken connection is nobody's business. */
const CONNECTING = "Connecting…";
const NO_NETWORK = "No network";
const NO_STORAGE = "This browser does not let the page store anything; a private window may be why.";
const SIGNED_OUT = "This device was signed out. To go on, sign in with a new link.";

class App {
  #root;
  #database;
  #notices = h("div", { class: "notices", role: "note" });
  #place = h("div", { class: "place" });
  #net = h("div", { class: "net", role: "status" });
  /** @type {Session | null} */
  #session = null;
  /** @type {Screen | null} */
  #screen = null;
  #netTimer = 0;
  /** The addresses on the way here. @type {string[]} */
  #trail = [];

  /**
   * @param {Element} root
   * @param {Database} database
   */
  constructor(root, database) {
    this.#root = root;
    this.#database = database;
    root.replaceChildren(this.#notices, h("div", { class: "net-place" }, this.#net), this.#place);
    addEventListener("hashchange", () => this.#arrived());
    root.addEventListener("click", (event) => this.#back(event));
    onOtherTab(() => location.reload());
    navigator.serviceWorker?.addEventListener("message", ({ data }) => goTo(data?.go));
  }

  async start(reason = "") {
    const code = takeCode();
    const account = await known(this.#database);
    if (account && !code) return this.#enter(account);
    this.#show(asScreen("Sign in", signInScreen({ database: this.#database, code, reason, now: account, done: (made) => void this.#enter(made) })));
  }

  /** @param {Account} account */
  async #enter(account) {
    const session = new Session(this.#database, account);
    this.#session = session;
    session.stateChanged.on(() => this.#showNet());
    session.noticesChanged.on(() => this.#showNotices());
    session.signedOut.on(() => void this.#signedOut());
    await session.start();
    this.#showNotices();
    this.#route();
  }

  async #signedOut() {
    this.#session?.stop();
    await forget(this.#database);
    this.#restart(SIGNED_OUT);
  }

  #restart(reason = "") {
    this.#session = null;
    this.#trail = [];
    this.#showNotices();
    this.#showNet();
    history.replaceState(null, "", "/");
    void this.start(reason);
  }

  #arrived() {
    if (location.hash.startsWith("#code=")) {
      this.#session?.stop();
      this.#session = null;
      void this.start();
    } else if (this.#session) this.#route();
  }

  /** The way back of a screen is the phone's own, where one came that way. @param {Event} event */
  #back(event) {
    const link = event.target instanceof Element ? event.target.closest("a[data-back]") : null;
    if (!link || this.#trail.at(-2) !== link.getAttribute("href")) return;
    event.preventDefault();
    history.back();
  }

  #remember(hash = location.hash || "#/") {
    if (this.#trail.at(-2) === hash) this.#trail.pop();
    else if (this.#trail.at(-1) !== hash) this.#trail.push(hash);
  }

  #route() {
    const session = this.#session;
    if (!session) return;
    this.#remember();
    const [path = "", query = ""] = location.hash.slice(1).split("?");
    const [, name = "", id = "", part = ""] = path.split("/");
    const go = (/** @type {string} */ to) => this.#go(to);
    const context = { session, go, restart: (/** @type {string} */ reason = "") => this.#restart(reason) };
    if (name === "new") this.#show(newScreen(context, new URLSearchParams(query)));
    else if (name === "settings") this.#show(settingsScreen(context));
    else if (name === "task" && part === "diff") this.#show(diffScreen(context, id));
    else if (name === "task" && id) this.#show(taskScreen(context, id));
    else this.#show(listScreen(context));
  }

  /** Instead of this screen: who goes back does not come here again. @param {string} hash */
  #go(hash) {
    this.#trail.pop();
    if (this.#trail.at(-1) === hash) history.back();
    else location.replace(hash);
  }

  /** @param {Screen} screen */
  #show(screen) {
    this.#screen?.close();
    this.#screen = screen;
    document.title = screen.title === "Errand" ? "Errand" : `${oneLine(screen.title, 60)} · Errand`;
    fill(this.#place, screen.node);
    if (document.activeElement === document.body) /** @type {HTMLElement | null} */ (this.#place.querySelector("main"))?.focus({ preventScroll: true });
  }

  #showNotices() {
    const notices = this.#session?.notices ?? [];
    fill(this.#notices, ...notices.map((notice) => h("p", {}, oneLine(notice))));
  }

  #showNet() {
    const state = this.#session?.state ?? "stopped";
    if (state === "broken" || state === "connecting") {
      this.#netTimer ||= setTimeout(() => say(this.#net, navigator.onLine ? CONNECTING : NO_NETWORK), QUIET_MS);
      return;
    }
    clearTimeout(this.#netTimer);
    this.#netTimer = 0;
    say(this.#net, "");
  }
}

/** The one-time code of a sign-in link; it leaves the address bar and the history at once. */
function takeCode() {
  const code = /^#code=(.+)$/.exec(location.hash)?.[1] ?? "";
  if (code) history.replaceState(null, "", "/");
  return code;
}

/** A notification was tapped. @param {unknown} hash */
function goTo(hash) {
  if (typeof hash === "string" && hash.startsWith("#/")) location.hash = hash;
}

/**
 * @param {string} title
 * @param {Element} node
 * @returns {Screen}
 */
function asScreen(title, node) {
  return { title, node, close() {} };
}

function installServiceWorker() {
  if (!navigator.serviceWorker) return; // a page that came over plain http has none
  navigator.serviceWorker.register(trusted("/worker.js")).catch(() => undefined);
}

/** Safari lays its keyboard over the page, where others make room for it. */
function makeRoomForKeyboard() {
  const seen = window.visualViewport;
  seen?.addEventListener("resize", () => {
    if (seen.scale !== 1) return; // somebody looks closely
    document.documentElement.style.setProperty("--height", `${seen.height}px`);
    scrollTo(0, 0);
  });
}

/** A script's address of ours, said to the browser in the one way that `require-trusted-types-for` leaves. @param {string} url */
function trusted(url) {
  const types = /** @type {any} */ (window).trustedTypes; // not in Safari before 26
  return types ? types.createPolicy("errand", { createScriptURL: (/** @type {string} */ same) => same }).createScriptURL(url) : url;
}

const root = document.getElementById("app");
if (root) {
  installServiceWorker();
  makeRoomForKeyboard();
  try {
    await new App(root, await Database.open()).start();
  } catch (error) {
    root.replaceChildren(h("main", { class: "plain" }, h("h1", {}, "Errand cannot start here"), h("p", {}, `${NO_STORAGE} (${error})`)));
  }
}
