/**
 * Keeps a container's children in step with a list: a child is made once, made again when its item changed, and not
 * moved in vain.
 * @template T
 */
export class Keyed {
  /** @type {Map<string, {item: T, node: Element}>} */
  #known = new Map();
  #container;
  #keyOf;
  #make;

  /**
   * @param {Element} container
   * @param {(item: T) => string} keyOf
   * @param {(item: T, before: Element | null) => Element} make may give `before` back, changed
   */
  constructor(container, keyOf, make) {
    this.#container = container;
    this.#keyOf = keyOf;
    this.#make = make;
  }

  /** @param {T[]} items */
  show(items) {
    const keys = new Set(items.map(this.#keyOf));
    for (const [key, { node }] of this.#known) if (!keys.has(key)) this.#remove(key, node);
    items.forEach((item, at) => {
      const node = this.#node(item);
      const there = this.#container.children[at] ?? null;
      if (node !== there) this.#container.insertBefore(node, there);
    });
  }

  /** @param {T} item */
  #node(item) {
    const key = this.#keyOf(item);
    const known = this.#known.get(key);
    if (known && known.item === item) return known.node;
    const node = this.#make(item, known?.node ?? null);
    if (known && known.node !== node) replace(known.node, node);
    this.#known.set(key, { item, node });
    return node;
  }

  /**
   * @param {string} key
   * @param {Element} node
   */
  #remove(key, node) {
    this.#known.delete(key);
    node.remove();
  }
}

/**
 * Who stood on the old one stands on the new one.
 * @param {Element} before
 * @param {Element} after
 */
function replace(before, after) {
  const hadFocus = before.contains(document.activeElement);
  before.replaceWith(after);
  if (hadFocus) /** @type {HTMLElement | null} */ (after.querySelector("a, button"))?.focus({ preventScroll: true });
}
