/** What is being written and not sent yet: it survives a reload, and goes with the sign-out. */

const PREFIX = "draft:";

/** @param {string} name */
export function draft(name) {
  return localStorage.getItem(PREFIX + name) ?? "";
}

/**
 * @param {string} name
 * @param {string} text "" forgets it
 */
export function keepDraft(name, text) {
  try {
    if (text) localStorage.setItem(PREFIX + name, text);
    else localStorage.removeItem(PREFIX + name);
  } catch {
    return; // no room: what is written is still on the screen
  }
}
