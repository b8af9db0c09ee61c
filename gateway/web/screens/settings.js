/** Who is signed in, on which devices, and how this one is. */

import { fill, h } from "../dom.js";
import { signOut } from "../live/account.js";
import { Problem } from "../live/api.js";
import { standing, turnOff, turnOn } from "../live/push.js";
import { bar } from "../parts/bar.js";
import { confirmed } from "../parts/confirm.js";
import { ring } from "../parts/icons.js";
import { copied, toast } from "../parts/toast.js";
import { defaults } from "./defaults.js";
import { schedules } from "./schedules.js";
import { secrets } from "./secrets.js";
import { clean } from "../text/clean.js";

/** @typedef {import("../live/api.js").Api} Api */
/** @typedef {import("../live/session.js").Session} Session */
/** @typedef {import("../protocol.js").DeviceShown} Device */
/** @typedef {import("../protocol.js").Me} Me */

/** @param {{session: Session, restart: (reason?: string) => void}} context */
export function settingsScreen({ session, restart }) {
  const devices = h("ul", { class: "rows" }, h("li", { class: "loading" }, ring()));
  const { account } = session;
  const out = h("button", { class: "button quiet danger", on: { click: () => void leave(session, restart) } }, "Sign this device out");
  const who = h("div", { class: "rows" }, h("div", { class: "row" }, h("span", { class: "row-main" }, h("span", { class: "row-title" }, clean(account.name)), h("span", { class: "row-sub" }, `${account.role} · ${location.host}`))));
  void showDevices(session, devices);
  void session.me().then((me) => me?.github && who.append(h("div", { class: "row" }, h("span", { class: "row-main" }, h("span", { class: "row-title" }, "GitHub"), h("span", { class: "row-sub wraps" }, `Branches are pushed as ${clean(me.github)}`)))));
  return {
    title: "Settings",
    node: h(
      "div",
      { class: "screen" },
      bar({ title: "Settings", back: "#/" }),
      h(
        "main",
        { class: "body", tabindex: -1 },
        section("Account", who),
        section("Your tasks", defaults(session)),
        section("By the calendar", schedules(session)),
        section("Secrets for set-ups", secrets(session)),
        section("Devices", devices, anotherDevice(session)),
        section("This device", notifications(session.api), out),
        h("p", { class: "dim small version" }, `Errand ${document.querySelector("meta[name=version]")?.getAttribute("content") ?? ""}`),
      ),
    ),
    close() {},
  };
}

/**
 * @param {string} title
 * @param {...Node} parts
 */
function section(title, ...parts) {
  return h("section", { class: "group" }, h("h2", {}, title), ...parts);
}

/**
 * @param {Session} session
 * @param {HTMLElement} place
 */
async function showDevices(session, place) {
  try {
    /** @type {Me} */
    const me = await session.api.get("/api/me");
    fill(place, ...me.devices.map((device) => deviceRow(session, place, device, device.id === me.device)));
  } catch (error) {
    fill(place, h("li", { class: "row dim" }, error instanceof Problem ? error.message : String(error)));
  }
}

/**
 * @param {Session} session
 * @param {HTMLElement} place
 * @param {Device} device
 * @param {boolean} isThis
 */
function deviceRow(session, place, device, isThis) {
  const added = new Date(device.added_at).toLocaleDateString([], { day: "numeric", month: "short", year: "numeric" });
  const main = h("span", { class: "row-main" }, h("span", { class: "row-title" }, clean(device.name)), h("span", { class: "row-sub" }, isThis ? "This device" : `Added ${added}`));
  const remove = async () => {
    const sure = await confirmed({ title: `Sign out ${clean(device.name)}?`, text: "It is signed out at once, and what it keeps is deleted as soon as it is online.", yes: "Sign it out", no: "Keep it" });
    if (!sure) return;
    button.disabled = true; // until the row is drawn anew
    await session.api.remove(`/api/devices/${device.id}`).catch((error) => toast(error.message));
    await showDevices(session, place);
  };
  const button = h("button", { class: "button small quiet", "aria-label": `Sign out ${clean(device.name)}`, on: { click: () => void remove() } }, "Sign out");
  return h("li", { class: "row" }, main, isThis ? null : button);
}

/** @param {Session} session */
function anotherDevice(session) {
  const place = h("div", { class: "new-link" });
  const make = async () => {
    button.disabled = true;
    try {
      fill(place, ...shownLink(await session.api.post("/api/sign-in-codes", { qr: true })));
    } catch (error) {
      toast(error instanceof Problem ? error.message : String(error));
    }
    button.disabled = false;
  };
  const button = h("button", { class: "button quiet", on: { click: () => void make() } }, "Add another device");
  place.append(button);
  return place;
}

/** @param {import("../protocol.js").SignInLink} made */
function shownLink({ link, qr = "" }) {
  return [
    h("p", {}, "Point the other device's camera here, or open the link on it. It works once, within a day."),
    h("img", { class: "qr", src: qr, alt: "The link as a QR code", width: 208, height: 208 }),
    h("p", { class: "mono link-text" }, link),
    h("button", { class: "button", on: { click: () => void copied(link, "Link") } }, "Copy link"),
  ];
}

/** @param {Api} api */
function notifications(api) {
  const button = h("button", { class: "switch", type: "button", role: "switch", "aria-checked": "false", disabled: true, "aria-labelledby": "push-title" });
  const told = h("span", { class: "row-sub wraps" }, "When a task needs you, or ends");
  const show = async () => {
    try {
      const offer = await standing(api);
      button.disabled = offer.standing === "impossible" || offer.standing === "denied";
      button.setAttribute("aria-checked", String(offer.standing === "on"));
      if (offer.reason) told.textContent = offer.reason;
      return offer;
    } catch (error) {
      told.textContent = error instanceof Error ? error.message : String(error);
    }
  };
  const flip = async () => {
    button.disabled = true;
    const offer = await show();
    button.disabled = true;
    try {
      if (offer?.standing === "on") await turnOff(api);
      else if (offer) await turnOn(api, offer.key);
    } catch (error) {
      toast(error instanceof Error ? error.message : String(error));
    }
    await show();
  };
  button.addEventListener("click", () => void flip());
  void show();
  const title = h("span", { class: "row-title", id: "push-title" }, "Notifications");
  return h("div", { class: "rows" }, h("div", { class: "row" }, h("span", { class: "row-main" }, title, told), button));
}

/**
 * @param {Session} session
 * @param {(reason?: string) => void} restart
 */
async function leave(session, restart) {
  const unsent = session.outbox.entries.filter((entry) => entry.state === "waiting").length;
  const lost = unsent ? ` ${unsent} of what you wrote was not sent yet, and is lost.` : "";
  const text = `Everything of yours on it is deleted; your tasks stay on the server.${lost}`;
  if (!(await confirmed({ title: "Sign out?", text, yes: "Sign out", no: "Stay" }))) return;
  try {
    session.stop();
    await signOut(session.database, session.account);
    restart();
  } catch (error) {
    toast(error instanceof Problem ? error.message : String(error));
    await session.start();
  }
}
