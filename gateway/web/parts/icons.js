/** The few pictures of the page, drawn on a grid of 24. Each stands beside a text, so none is read aloud. */

const SVG = "http://www.w3.org/2000/svg";

/** @type {Record<string, string>} */
const PATHS = {
  back: "M15 5l-7 7 7 7",
  close: "M6 6l12 12M18 6L6 18",
  plus: "M12 5v14M5 12h14",
  gear: "M4 7h9M17 7h3M4 17h3M11 17h9M13 7a2 2 0 1 0 4 0a2 2 0 1 0-4 0M7 17a2 2 0 1 0 4 0a2 2 0 1 0-4 0",
  send: "M12 19V5M5.5 11.5L12 5l6.500 6.500",
  stop: "M7 7h10v10H7z",
  ok: "M5 12.500l4.500 4.500L19 7.500",
  failed: "M7 7l10 10M17 7L7 17",
  unknown: "M9 9.200a3 3 0 1 1 4.200 2.800c-.8.4-1.200 1-1.200 2M12 17.400v.1",
  cancelled: "M8 8h8v8H8z",
  waiting: "M12 6v7.500M12 17.400v.1",
  clock: "M12 7v5l3.500 2M3.500 12a8.500 8.500 0 1 0 17 0a8.500 8.500 0 1 0-17 0",
  next: "M9.500 5.500L16 12l-6.500 6.500",
  down: "M12 5v14M5.500 12.500L12 19l6.500-6.500",
  copy: "M9 9h10v10H9zM5 15V5h10",
  branch: "M7 8v8M7 8a2 2 0 1 0 0-4a2 2 0 1 0 0 4M7 20a2 2 0 1 0 0-4a2 2 0 1 0 0 4M17 9.500a2 2 0 1 0 0-4a2 2 0 1 0 0 4M17 9.500c0 4-6 3.500-9.500 6",
  out: "M13 5h6v6M19 5l-9 9M11 7H6v11h11v-5",
  again: "M19 12a7 7 0 1 1-2.200-5.100M17.500 3v4.500H13",
  paused: "M9 7v10M15 7v10",
};

/** @param {string} name @returns {SVGElement} */
export function icon(name) {
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("viewBox", "0 0 24 24");
  drawn.setAttribute("class", "icon");
  drawn.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name] ?? "");
  drawn.append(path);
  return drawn;
}

/** Which picture stands for a state; "" is the ring that turns. @type {Record<string, string>} */
const STATE_ICONS = {
  queued: "clock",
  running: "",
  waiting: "waiting",
  delayed: "clock",
  paused: "paused",
  succeeded: "ok",
  failed: "failed",
  cancelled: "cancelled",
};

/** A state's sign, in its colour. @param {string} state */
export function stateSign(state) {
  const sign = document.createElement("span");
  sign.className = `sign ${state}`;
  const name = STATE_ICONS[state] ?? "clock";
  sign.append(name ? icon(name) : ring());
  return sign;
}

/** Something is at work. */
export function ring() {
  const turning = document.createElement("span");
  turning.className = "ring";
  turning.setAttribute("aria-hidden", "true");
  return turning;
}
