/**
 * Loads the page. A phone often changes its network in the middle of that: then a module is missing, and only loading all
 * of it again helps.
 */

const TRIES = "load-tries";
const TRIES_LIMIT = 4;
const AGAIN_MS = 500;
const FAILED = "The page could not be loaded. Look whether you are connected, then reload it.";

/** @param {unknown} error */
function again(error) {
  const tries = Number(sessionStorage.getItem(TRIES)) + 1;
  sessionStorage.setItem(TRIES, String(tries % TRIES_LIMIT));
  if (tries < TRIES_LIMIT) setTimeout(() => location.reload(), AGAIN_MS * tries);
  else document.getElementById("starting")?.append(` ${FAILED} (${error})`);
}

// The page asks for this file twice, should one answer be lost.
if (!document.documentElement.dataset.starting) {
  document.documentElement.dataset.starting = "yes";
  import("./app.js").then(() => sessionStorage.removeItem(TRIES), again);
}
