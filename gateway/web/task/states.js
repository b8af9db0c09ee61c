/** The states of a task, in the words of the screen. */

/** @typedef {import("../protocol.js").TaskState} TaskState */

/** In which no turn is open. @type {ReadonlySet<string>} */
export const OUTCOMES = new Set(["succeeded", "failed", "cancelled"]);

/** @type {Record<TaskState, string>} */
export const WORDS = {
  queued: "Queued",
  running: "Running",
  waiting: "Needs you",
  delayed: "Scheduled",
  paused: "Paused",
  succeeded: "Done",
  failed: "Failed",
  cancelled: "Cancelled",
};
