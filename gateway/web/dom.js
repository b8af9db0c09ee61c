/**
 * Makes elements. Text becomes text nodes and never markup; the page sets no `innerHTML` anywhere.
 */

/** @typedef {Node | string | number | null | undefined | false} Child */
/** What has to be set on the element: as an attribute it would be its first value alone. */
const PROPERTIES = { value: true, checked: true };

/**
 * @typedef {object} Given
 * @property {string} [class]
 * @property {Record<string, (event: any) => void>} [on] listeners by event name
 */

/**
 * `h("button", {class: "big", on: {click}}, "Send")`. Other names are attributes; `true` sets one without a value,
 * null, undefined and false leave it out.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Given & Record<string, any>} [given]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name === "on") listen(node, value);
    else if (name in PROPERTIES && name in node) /** @type {any} */ (node)[name] = value;
    else attribute(node, name, value);
  }
  return append(node, children);
}

/**
 * @template {Node} N
 * @param {N} node
 * @param {Child[]} children
 */
export function append(node, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    node.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/**
 * @param {Element} node
 * @param {...Child} children
 */
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
}

/**
 * Set the text where it differs: a screen reader hears no change that is none.
 * @param {Node} node
 * @param {string} text
 */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * @param {Element} node
 * @param {string} name
 * @param {any} value
 */
export function attribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? "" : String(value));
}

/**
 * @param {Element} node
 * @param {Record<string, (event: any) => void>} listeners
 */
function listen(node, listeners) {
  for (const [name, heard] of Object.entries(listeners)) node.addEventListener(name, heard);
}
