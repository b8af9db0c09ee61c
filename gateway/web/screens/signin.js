/** Signing in: by the link that brought one here, by a pasted one, or with GitHub. */

import { isInstalled, isIos, deviceName } from "../device.js";
import { h } from "../dom.js";
import { signIn } from "../live/account.js";
import { Api, Problem } from "../live/api.js";
import { Field } from "../parts/field.js";
import { codeIn } from "./code.js";

/** @typedef {import("../live/account.js").Account} Account */
/** @typedef {import("../live/database.js").Database} Database */

const PITCH = "Send coding work from your phone; get a pushed branch back.";
const WHERE =
  "To sign in you need a link. The server shows one when it starts, with a QR code for your camera; " +
  "on a device that is signed in, Settings makes one.";
const USED_UP =
  "This link was used already or has expired. Make a new one in Settings on a device that is signed in, or start the " +
  "server again, and paste it here.";
const REPLACES = "This device is signed in already. The link replaces that, and deletes what the device keeps of it.";
const INSTALL_FIRST =
  "To have Errand on the home screen, with notifications: choose Share → Add to Home Screen first, then open it there " +
  "and paste the link.";

/**
 * @param {object} given
 * @param {Database} given.database
 * @param {string} given.code from the link; "" where there is none
 * @param {string} given.reason why one has to sign in, if there is a reason
 * @param {Account | undefined} given.now who is signed in already
 * @param {(account: Account) => void} given.done
 */
export function signInScreen({ database, code, reason, now, done }) {
  const link = new Field("code", "Sign-in link or code", text({ autocapitalize: "off", spellcheck: "false" }));
  const device = new Field("device_name", "Name of this device", text({ value: deviceName(), maxlength: 64 }));
  const button = h("button", { class: "button", type: "submit" }, "Sign in");
  const wrong = h("p", { class: "wrong", role: "alert" });
  link.node.hidden = Boolean(code);

  /** @param {Problem} problem */
  const complain = (problem) => {
    if (problem.field === "device_name") return device.complain(problem.message);
    wrong.textContent = problem.status === 401 ? USED_UP : problem.message;
    if (problem.status === 401) {
      code = "";
      link.node.hidden = false;
    }
  };
  const submit = async () => {
    button.disabled = true;
    wrong.textContent = "";
    try {
      done(await signIn(database, code || codeIn(link.value), device.value));
    } catch (error) {
      complain(error instanceof Problem ? error : new Problem(String(error)));
      button.disabled = false;
    }
  };
  const others = h("div", { class: "others" });
  void offerGitHub(others);
  return h(
    "main",
    { class: "welcome" },
    h("img", { src: new URL("../icons/icon.svg", import.meta.url).href, alt: "", width: 72, height: 72 }),
    h("h1", {}, code ? "Sign this device in" : "Errand"),
    h("p", { class: "lead" }, reason || (code ? `to ${location.host}` : PITCH)),
    code || reason ? null : h("p", { class: "dim" }, WHERE),
    now ? h("p", { class: "tip" }, REPLACES) : null,
    isIos() && !isInstalled() ? h("p", { class: "tip" }, INSTALL_FIRST) : null,
    h(
      "form",
      { class: "form", on: { submit: (event) => void (event.preventDefault(), submit()) } },
      link.node,
      device.node,
      wrong,
      button,
      now ? h("button", { class: "button quiet", type: "button", on: { click: () => done(now) } }, `Stay signed in as ${now.name}`) : null,
      others,
    ),
  );
}

/** @param {Record<string, any>} given */
function text(given) {
  return h("input", { type: "text", autocomplete: "off", enterkeyhint: "go", ...given });
}

/** @param {Element} place */
async function offerGitHub(place) {
  try {
    const offered = await new Api().get("/api/sign-in/github");
    const start = new URL(offered.start, location.href);
    if (!offered.available || start.origin !== location.origin) return;
    const button = h("a", { class: "button quiet", href: start.href }, "Sign in with GitHub");
    place.append(h("p", { class: "or" }, "or"), button);
  } catch {
    return; // a server without it
  }
}
