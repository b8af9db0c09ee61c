/** The REST side. Every answer that is no success is a `Problem` with a sentence for the user. */

const ANSWER_MS = 20_000;
export const NO_ANSWER = "The server does not answer. Look whether you are connected, and try again.";

export class Problem extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 where the server was not reached
   * @param {string} field the field that is wrong, where it is one
   */
  constructor(message, status = 0, field = "") {
    super(message);
    this.status = status;
    this.field = field;
  }
}

export class Api {
  #token;

  /** @param {string} token this device's own; "" before it is signed in */
  constructor(token = "") {
    this.#token = token;
  }

  /** @param {string} path @returns {Promise<any>} */
  get(path) {
    return this.#ask("GET", path);
  }

  /** @param {string} path @param {any} body @returns {Promise<any>} */
  post(path, body) {
    return this.#ask("POST", path, body);
  }

  /** @param {string} path @param {any} body @returns {Promise<any>} */
  put(path, body) {
    return this.#ask("PUT", path, body);
  }

  /** @param {string} path @returns {Promise<any>} */
  remove(path) {
    return this.#ask("DELETE", path);
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {any} [body]
   */
  async #ask(method, path, body) {
    /** @type {Record<string, string>} */
    const headers = this.#token ? { authorization: `Bearer ${this.#token}` } : {};
    if (body !== undefined) headers["content-type"] = "application/json";
    const signal = AbortSignal.timeout ? AbortSignal.timeout(ANSWER_MS) : null;
    const given = { method, headers, signal, body: body === undefined ? null : JSON.stringify(body) };
    /** @type {Response} */
    let answer;
    try {
      answer = await fetch(path, { ...given, credentials: "omit", cache: "no-store" });
    } catch {
      throw new Problem(NO_ANSWER);
    }
    const said = await answer.json().catch(() => null);
    if (!answer.ok) throw new Problem(said?.error ?? `The server answers ${answer.status}.`, answer.status, said?.field);
    return said;
  }
}
