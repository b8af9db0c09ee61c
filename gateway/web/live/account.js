/** Who is signed in on this device. Another user's sign-in, and a sign-out, leave nothing of the one before. */

import { Api, Problem } from "./api.js";

/** @typedef {import("./database.js").Database} Database */
/** @typedef {{user: string, name: string, role: string, device: string, token: string}} Account */

/** One object a tab: it does not hear itself. */
const otherTabs = new BroadcastChannel("errand-account");

/** @param {Database} database @returns {Promise<Account | undefined>} */
export function known(database) {
  return database.get("kept", "account");
}

/**
 * Exchange a one-time code. Raises Problem.
 * @param {Database} database
 * @param {string} code
 * @param {string} deviceName
 * @returns {Promise<Account>}
 */
export async function signIn(database, code, deviceName) {
  const account = await new Api().post("/api/sign-in", { code, device_name: deviceName });
  await forget(database);
  await database.put("kept", "account", account);
  tellOtherTabs();
  return account;
}

/**
 * Raises Problem where the server could not be told, and then nothing is forgotten.
 * @param {Database} database
 * @param {Account} account
 */
export async function signOut(database, account) {
  try {
    await new Api(account.token).remove(`/api/devices/${account.device}`);
  } catch (error) {
    if (!(error instanceof Problem) || ![401, 404].includes(error.status)) throw error;
  }
  await forget(database);
  tellOtherTabs();
}

/** @param {Database} database */
export async function forget(database) {
  await database.wipe();
  localStorage.clear();
  sessionStorage.clear();
  const registration = await navigator.serviceWorker?.getRegistration();
  const subscription = await registration?.pushManager?.getSubscription();
  await subscription?.unsubscribe();
  for (const shown of (await registration?.getNotifications?.()) ?? []) shown.close();
}

/**
 * Whether the server still knows this device: true also where it cannot be asked.
 * @param {Account} account
 */
export async function isKnownToServer(account) {
  try {
    await new Api(account.token).get("/api/me");
  } catch (error) {
    return !(error instanceof Problem && error.status === 401);
  }
  return true;
}

/** The account changed in another tab: start again. @param {() => void} heard */
export function onOtherTab(heard) {
  otherTabs.onmessage = heard;
}

function tellOtherTabs() {
  otherTabs.postMessage("changed");
}
