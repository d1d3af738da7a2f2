// A JSON value as a tree that opens and closes.
import { h } from '../core/dom.js';

export function jsonTree(value, name = null, depth = 0) {
  const label = name === null ? null : h('span', { class: 'json-name' }, name);
  if (value === null || typeof value !== 'object') {
    return h('div', { class: 'json-leaf' }, label, h('span', { class: `json-${value === null ? 'null' : typeof value}` }, String(value)));
  }
  const entries = Object.entries(value);
  const size = Array.isArray(value) ? `${entries.length} items` : `${entries.length} fields`;
  if (entries.length === 0) {
    return h('div', { class: 'json-leaf' }, label, h('span', { class: 'faint' }, Array.isArray(value) ? '[]' : '{}'));
  }
  const children = entries.map(([key, child]) => jsonTree(child, key, depth + 1));
  if (name === null) return h('div', { class: 'json' }, children);
  return h('details', { key: name, class: 'json-node', open: depth < 3 }, h('summary', null, label, h('small', null, size)), children);
}
