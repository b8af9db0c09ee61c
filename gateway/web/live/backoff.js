/** How long to wait before the next try. Pure. */

const SHORTEST_MS = 300;
const LONGEST_MS = 15_000;

/**
 * Grows with each try; the chance keeps a thousand phones from coming back at the same moment.
 * @param {number} tries so far, from 1
 * @param {number} chance of 0 to 1
 */
export function waitMs(tries, chance) {
  return Math.min(LONGEST_MS, SHORTEST_MS * 2 ** Math.min(tries - 1, 10)) * (0.5 + chance / 2);
}
