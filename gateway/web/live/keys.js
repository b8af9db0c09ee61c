/** Idempotency keys, made when something is written and never again: sent twice, it is done once. */

/** 128 random bits as hexadecimal digits. `crypto.randomUUID` is missing where a page came over plain http. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
