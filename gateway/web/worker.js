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
  try {
    return await fetch(request, { signal: AbortSignal.timeout(3000) });
  } catch {
    return (await caches.match("/")) ?? Response.error();
  }
}

/** Its address changes with it, so the one that is kept is right. */
async function file(/** @type {Request} */ request) {
  return (await caches.match(request)) ?? fetch(request);
}

worker.addEventListener("push", (event) => {
  const told = event.data ? event.data.json() : {};
  const given = { body: told.body, tag: told.tag, renotify: Boolean(told.tag), data: { url: told.url || "/" } };
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
