/** The page without a network, and what the server pushes. Written so that it works in every browser that has push. */

const worker = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self));
const VERSION = "@version@";
const FILES = ["@files@"];

worker.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(VERSION)
      .then((cache) => cache.addAll(FILES))
      .then(() => worker.skipWaiting()),
  );
});

worker.addEventListener("activate", (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter((name) => name !== VERSION).map((name) => caches.delete(name))))
      .then(() => worker.clients.claim()),
  );
});

worker.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  if (event.request.mode === "navigate" && url.pathname === "/") event.respondWith(page(event.request));
  else if (url.pathname.startsWith("/web/")) event.respondWith(file(event.request));
});

/** The newest page where the server answers soon, else the one that is kept. */
async function page(/** @type {Request} */ request) {
  const kept = await caches.match("/");
  try {
    const fresh = await fetch(request, { signal: AbortSignal.timeout(3000) });
    return fresh.ok || !kept ? fresh : kept; // a proxy before a server that is away answers too
  } catch {
    return kept ?? Response.error();
  }
}

/** Its address changes with it, so the one that is kept is right. */
async function file(/** @type {Request} */ request) {
  return (await caches.match(request)) ?? fetch(request);
}

worker.addEventListener("push", (event) => {
  const told = event.data ? event.data.json() : {};
  const icon = `/web/${VERSION}/icons/icon-192.png`;
  const given = { body: told.body, tag: told.tag, renotify: Boolean(told.tag), icon, data: { url: told.url || "/" } };
  event.waitUntil(worker.registration.showNotification(told.title || "Errand", given));
});

worker.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(show(event.notification.data.url));
});

/** In the window that is open, else in a new one; never on another server. */
async function show(/** @type {string} */ address) {
  const url = new URL(address, location.origin);
  if (url.origin !== location.origin) return;
  const [open] = await worker.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (!open) return void (await worker.clients.openWindow(url.href));
  await open.focus();
  open.postMessage({ go: url.hash || "#/" });
}

// The outbox, where the browser has background sync: what was written goes out also when the page is closed. It goes by
// REST, under the same keys; the page, when it is open again, asks for the receipts.

/** Where each command is posted, and what of its frame. @type {Record<string, (frame: any) => [string, any]>} */
const ROADS = {
  submit: ({ type, ...body }) => ["/api/tasks/", body],
  say: ({ task, text, key }) => [`/api/tasks/${task}/messages`, { text, key }],
  answer: ({ task, question, text, key }) => [`/api/tasks/${task}/answers`, { question, text, key }],
  approve: ({ task, question, key }) => [`/api/tasks/${task}/approve`, { question, key }],
  deny: ({ task, question, reason, key }) => [`/api/tasks/${task}/deny`, { question, reason, key }],
  change_budget: ({ task, budget, key }) => [`/api/tasks/${task}/budget`, { budget, key }],
  cancel: ({ task, key }) => [`/api/tasks/${task}/cancel`, { key }],
  pause: ({ task, key }) => [`/api/tasks/${task}/pause`, { key }],
  resume: ({ task, key }) => [`/api/tasks/${task}/resume`, { key }],
  tag: ({ task, type, ...body }) => [`/api/tasks/${task}/tags`, body],
  retry: ({ task, key }) => [`/api/tasks/${task}/retry`, { key }],
  archive: ({ task, key }) => [`/api/tasks/${task}/archive`, { key }],
};
const NO_REFUSAL = [401, 408, 425, 429];
/** Nothing is wrong with what was written. */

worker.addEventListener("sync", (/** @type {any} */ event) => {
  if (event.tag === "outbox") event.waitUntil(sendOutbox());
});

/** Fails where the server is not reached: then the browser tries again. */
async function sendOutbox() {
  const database = await open();
  try {
    const account = await asked(database.transaction("kept").objectStore("kept").get("account"));
    const entries = await asked(database.transaction("outbox").objectStore("outbox").getAll());
    const waiting = entries.filter((/** @type {any} */ entry) => entry.state === "waiting");
    waiting.sort((/** @type {any} */ a, /** @type {any} */ b) => a.at - b.at);
    for (const entry of account ? waiting : []) await sendEntry(database, account.token, entry);
  } finally {
    database.close();
  }
}

async function sendEntry(/** @type {IDBDatabase} */ database, /** @type {string} */ token, /** @type {any} */ entry) {
  const [path, body] = ROADS[entry.frame.type]?.(entry.frame) ?? [];
  if (!path) return;
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), credentials: "omit" });
  if (answer.status >= 500 || NO_REFUSAL.includes(answer.status)) throw new Error(`answered ${answer.status}`);
  const said = await answer.json();
  const now = answer.ok ? { state: "accepted", task: said.task } : { state: "refused", reason: said.error, field: said.field ?? "" };
  const store = database.transaction("outbox", "readwrite").objectStore("outbox");
  // The page may have it done and forgotten by now.
  if (await asked(store.get(entry.frame.key))) await asked(store.put({ ...entry, ...now }, entry.frame.key));
}

/** The page's; where there is none it is the page's to make. @returns {Promise<IDBDatabase>} */
function open() {
  const opening = indexedDB.open("errand");
  opening.onupgradeneeded = () => opening.transaction?.abort();
  return asked(opening);
}

/** @returns {Promise<any>} */
function asked(/** @type {IDBRequest} */ request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
