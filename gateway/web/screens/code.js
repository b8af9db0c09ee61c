/** The one-time code of a sign-in link. Pure. */

/** The code in what was pasted: a whole link, or the code alone. @param {string} pasted */
export function codeIn(pasted) {
  const trimmed = pasted.trim();
  return /#code=([^&\s]+)/.exec(trimmed)?.[1] ?? trimmed;
}
