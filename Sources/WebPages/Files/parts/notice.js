// A word at the page's lower edge that goes away by itself; read out by screen readers.
import { h } from '../core/dom.js';

export function notice(text, kind = 'good') {
  const node = h('div', { class: `notice ${kind}` }, text);
  document.getElementById('notices').append(node);
  setTimeout(() => node.remove(), kind === 'bad' ? 12000 : 5000);
}
