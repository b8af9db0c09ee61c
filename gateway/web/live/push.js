/** Notifications on this device. The browser asks the person; the server sends to where the browser says. */

/** @typedef {import("./api.js").Api} Api */
/** @typedef {"on" | "off" | "denied" | "impossible"} Standing */
/** @typedef {{standing: Standing, reason: string, key: string}} Offer */

const NO_BROWSER = "This browser cannot be notified. On an iPhone it takes iOS 16.4, and Errand on the home screen.";
const NOT_SECURE = "Notifications need HTTPS: ask whoever runs this server (docs/reaching.md says how).";
const DENIED = "Notifications from this page are blocked: allow them in the browser's settings of this page.";
const READY_MS = 5_000;

/**
 * How it stands here, and why it is not possible. Raises Problem.
 * @param {Api} api
 * @returns {Promise<Offer>}
 */
export async function standing(api) {
  const offered = await api.get("/api/push");
  const say = (/** @type {Standing} */ how, reason = "") => ({ standing: how, reason, key: offered.public_key });
  if (!offered.available) return say("impossible", offered.reason);
  if (!isSecureContext) return say("impossible", NOT_SECURE);
  if (!("PushManager" in window) || !("Notification" in window)) return say("impossible", NO_BROWSER);
  if (Notification.permission === "denied") return say("denied", DENIED);
  const registration = await registered();
  const subscription = await registration?.pushManager.getSubscription();
  return say(subscription && offered.subscribed ? "on" : "off");
}

/**
 * Asks the person; so it must come from a tap. Raises Error with a sentence.
 * @param {Api} api
 * @param {string} key the server's
 */
export async function turnOn(api, key) {
  if ((await Notification.requestPermission()) !== "granted") throw new Error(DENIED);
  const registration = await registered();
  if (!registration) throw new Error("The page is still being installed: try again in a moment.");
  // One that the server has dropped may be bound to a key that the server has no more.
  await (await registration.pushManager.getSubscription())?.unsubscribe();
  const subscription = await registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  try {
    await api.post("/api/push/subscriptions", subscription.toJSON());
  } catch (error) {
    await subscription.unsubscribe(); // the server does not know it
    throw error;
  }
}

/** @param {Api} api */
export async function turnOff(api) {
  const registration = await registered();
  const subscription = await registration?.pushManager.getSubscription();
  await subscription?.unsubscribe();
  await api.remove("/api/push/subscriptions");
}

/** The service worker's registration; it may take a moment after the first visit. */
async function registered() {
  const late = new Promise((resolve) => setTimeout(resolve, READY_MS));
  return /** @type {ServiceWorkerRegistration | undefined} */ (await Promise.race([navigator.serviceWorker.ready, late]));
}
