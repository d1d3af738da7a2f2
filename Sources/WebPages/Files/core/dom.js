// Elements, made and brought up to date. Data enters as text nodes and attributes only; nothing here parses markup.

const SVG = 'http://www.w3.org/2000/svg';
/** Handlers of elements, so that `patch` can hand a fresh element's over to the one that stays. */
const handlers = new WeakMap();
/** What makes an element the same one among its siblings. */
const keys = new WeakMap();

/** h('button', {class: 'quiet', onclick: f}, 'Text', child, [more], null) */
export const h = (tag, attributes, ...children) =>
  build(document.createElement(tag), attributes, children);

/** The same in SVG's name space. */
export const s = (tag, attributes, ...children) =>
  build(document.createElementNS(SVG, tag), attributes, children);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) {
      node[name] = value;
      if (!handlers.has(node)) handlers.set(node, {});
      handlers.get(node)[name] = value;
    } else if (name === 'key') keys.set(node, String(value));
    else if (name === 'style') for (const [property, text] of Object.entries(value)) node.style.setProperty(property, text);
    else if (name === 'value') { node.value = value; node.setAttribute('value', value); }
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
}

/** Makes `place` hold these children, keeping what is the same: focus, selection and scrolling stay. */
export function render(place, ...children) {
  const fresh = document.createDocumentFragment();
  append(fresh, children);
  patchChildren(place, fresh);
}

function patch(live, fresh) {
  if (live.nodeType === Node.TEXT_NODE) {
    if (live.data !== fresh.data) live.data = fresh.data;
    return;
  }
  for (const name of live.getAttributeNames()) {
    // A details or dialog that a person opened stays open.
    if (!fresh.hasAttribute(name) && name !== 'open') live.removeAttribute(name);
  }
  for (const name of fresh.getAttributeNames()) {
    const value = fresh.getAttribute(name);
    if (live.getAttribute(name) === value) continue;
    if (name === 'style') live.style.cssText = fresh.style.cssText; else live.setAttribute(name, value);
    if (name === 'value' && live !== document.activeElement) live.value = value;
  }
  for (const name of Object.keys(handlers.get(live) ?? {})) live[name] = null;
  if (handlers.has(fresh)) {
    Object.assign(live, handlers.get(fresh));
    handlers.set(live, handlers.get(fresh));
  } else handlers.delete(live);
  patchChildren(live, fresh);
}

function patchChildren(live, fresh) {
  const keyed = new Map();
  for (const child of live.childNodes) if (keys.has(child)) keyed.set(keys.get(child), child);
  let at = live.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keys.get(child);
    const match = key === undefined ? (at && !keys.has(at) ? at : null) : keyed.get(key) ?? null;
    if (match === null || match.nodeName !== child.nodeName) {
      live.insertBefore(child, at);
      continue;
    }
    if (match === at) at = at.nextSibling; else live.insertBefore(match, at);
    patch(match, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** Calls `body` at most once a frame, however often it is asked. */
export function onceAFrame(body) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; body(); });
  };
}

/** Calls `body` when nobody has asked for `milliseconds`. */
export function whenQuiet(milliseconds, body) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => body(...values), milliseconds);
  };
}
