// Elements, made and kept up to date.
//
// Owns: the one way in which anything gets onto the page. What is foreign only ever becomes text or the value of an
// attribute: nothing here, or anywhere else, reads markup.

const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

/** What is to be shown of some children: texts become nodes, and what is absent is left out. */
function nodes(children) {
  const shown = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  return shown.map((child) => (child instanceof Node ? child : document.createTextNode(String(child))));
}

/** An element of the page. */
export function h(name, attributes = {}, ...children) {
  return build(document.createElement(name), attributes, children);
}

/** An element of a picture. */
export function s(name, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, name), attributes, children);
}

function key(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
}

function same(one, other) {
  return one.nodeType === other.nodeType && one.nodeName === other.nodeName && key(one) === key(other);
}

/** Makes `old` look like `fresh`, and leaves alone what is the same: focus, selection and what a reader has opened stay. */
export function patch(old, fresh) {
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  const kept = old.nodeName === "DETAILS" ? "open" : old.nodeName === "INPUT" ? "value" : null;
  for (const { name } of [...old.attributes]) {
    if (name !== kept && !fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== kept && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  fill(old, [...fresh.childNodes]);
}

/** Makes `children` the children of `parent`, likewise. */
export function fill(parent, children) {
  const keyed = new Map();
  for (const child of parent.childNodes) {
    if (key(child) !== null) keyed.set(key(child), child);
  }
  let at = parent.firstChild;
  for (const fresh of nodes(children)) {
    const wanted = key(fresh);
    const old = wanted === null ? at : keyed.get(wanted);
    if (!old || !same(old, fresh)) {
      parent.insertBefore(fresh, at);
      continue;
    }
    patch(old, fresh);
    if (old === at) at = at.nextSibling;
    else parent.insertBefore(old, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
