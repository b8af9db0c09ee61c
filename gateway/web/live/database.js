/** What this device keeps, in IndexedDB: the account, what is still to be sent, what was seen. All of one user. */

const NAME = "errand";
const VERSION = 1;
const STORES = ["kept", "outbox", "events"];

/** @typedef {"kept" | "outbox" | "events"} Store */

export class Database {
  #idb;

  /** @param {IDBDatabase} idb */
  constructor(idb) {
    this.#idb = idb;
    idb.onversionchange = () => idb.close(); // another tab has a newer page
  }

  /** @returns {Promise<Database>} */
  static open() {
    return new Promise((resolve, reject) => {
      const asked = indexedDB.open(NAME, VERSION);
      asked.onupgradeneeded = () => {
        for (const store of STORES) asked.result.createObjectStore(store);
      };
      asked.onsuccess = () => resolve(new Database(asked.result));
      asked.onerror = () => reject(asked.error);
    });
  }

  /**
   * @param {Store} store
   * @param {IDBValidKey} key
   * @returns {Promise<any>}
   */
  get(store, key) {
    return this.#do(store, "readonly", (s) => s.get(key));
  }

  /**
   * Resolves once it is on the disk.
   * @param {Store} store
   * @param {IDBValidKey} key
   * @param {any} value
   */
  put(store, key, value) {
    return this.#do(store, "readwrite", (s) => s.put(value, key));
  }

  /**
   * @param {Store} store
   * @param {[IDBValidKey, any][]} entries
   */
  putAll(store, entries) {
    return this.#do(store, "readwrite", (s) => {
      for (const [key, value] of entries) s.put(value, key);
    });
  }

  /**
   * @param {Store} store
   * @param {IDBValidKey | IDBKeyRange} key
   */
  remove(store, key) {
    return this.#do(store, "readwrite", (s) => s.delete(key));
  }

  /**
   * In the order of their keys.
   * @param {Store} store
   * @param {IDBKeyRange} [range]
   * @returns {Promise<any[]>}
   */
  all(store, range) {
    return this.#do(store, "readonly", (s) => s.getAll(range));
  }

  /** Forget everything. */
  async wipe() {
    for (const store of STORES) await this.#do(/** @type {Store} */ (store), "readwrite", (s) => s.clear());
  }

  /**
   * @param {Store} store
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest | void} what
   * @returns {Promise<any>}
   */
  #do(store, mode, what) {
    return new Promise((resolve, reject) => {
      const transaction = this.#idb.transaction(store, mode, { durability: mode === "readwrite" ? "strict" : "default" });
      const request = what(transaction.objectStore(store));
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onabort = () => reject(transaction.error);
    });
  }
}
