/** What kind of device this is, as far as a browser tells. */

/** @type {[RegExp, string][]} */
const SYSTEMS = [
  [/iPhone/, "iPhone"],
  [/iPad/, "iPad"],
  [/Android.*Mobile/, "Android phone"],
  [/Android/, "Android tablet"],
  [/Macintosh/, "Mac"],
  [/Windows/, "Windows PC"],
  [/CrOS/, "Chromebook"],
  [/Linux/, "Linux PC"],
];
/** @type {[RegExp, string][]} */
const BROWSERS = [
  [/Edg/, "Edge"],
  [/Firefox|FxiOS/, "Firefox"],
  [/Chrome|CriOS/, "Chrome"],
  [/Safari/, "Safari"],
];

/** Such as `iPhone, Safari`: a name to recognise it by in a list. */
export function deviceName() {
  const named = (/** @type {[RegExp, string][]} */ list) => list.find(([pattern]) => pattern.test(navigator.userAgent))?.[1];
  return [named(SYSTEMS) ?? "Device", named(BROWSERS)].filter(Boolean).join(", ");
}

export function isIos() {
  return /iPhone|iPad/.test(navigator.userAgent) || (/Macintosh/.test(navigator.userAgent) && navigator.maxTouchPoints > 1);
}

/** Whether it runs from the home screen. */
export function isInstalled() {
  return matchMedia("(display-mode: standalone)").matches;
}
