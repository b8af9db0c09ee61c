/** Where a watch stands: which events are new, which came before, and whether one is missing. Pure. */

/** @typedef {import("../protocol.js").DecisionSeen | import("../protocol.js").JournalSeen} Event */

/**
 * @param {number} cursor the sequence of the last event seen
 * @param {Event} frame
 * @returns {"new" | "seen" | "gap"} gap: an event before this one was not sent, watch again from the cursor
 */
export function judge(cursor, frame) {
  if (frame.sequence <= cursor) return "seen";
  return knownBefore(frame) > cursor ? "gap" : "new";
}

/** The highest sequence of this task that the frame shows to exist before itself. @param {Event} frame */
function knownBefore(frame) {
  if (frame.type === "journal_seen") return frame.previous;
  return Math.max(frame.previous, frame.decision.journal_sequence ?? 0);
}
