// Keys that work on every page, and the page that lists them.
import { h } from './dom.js';
import { openDialog } from '../parts/dialog.js';

const all = [];
let pending = '', timer = 0;

/** `keys`: one key ("/"), or two in a row ("g o"). */
export function onKey(keys, meaning, body) { all.push({ keys, meaning, body }); }

const isTyping = (node) => node?.matches?.('input:not([type=range]), textarea, select, [contenteditable]');

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (document.querySelector('dialog[open]')) return;
  clearTimeout(timer);
  const typed = pending ? `${pending} ${event.key}` : event.key;
  const found = all.find((one) => one.keys === typed) ?? all.find((one) => one.keys === event.key);
  pending = '';
  if (found) {
    event.preventDefault();
    found.body();
  } else if (all.some((one) => one.keys.startsWith(typed + ' '))) {
    pending = typed;
    timer = setTimeout(() => { pending = ''; }, 1200);
  }
});

export function showKeys() {
  openDialog('Keys', [
    h('dl', { class: 'keys' }, all.map(({ keys, meaning }) => [
      h('dt', null, keys.split(' ').map((key) => h('kbd', null, key))), h('dd', null, meaning),
    ])),
    h('p', { class: 'muted' }, 'In tables: ↑ and ↓ move, Enter opens. On the slider of a moment: ← and → move, Home and '
      + 'End go to the beginning and to now.'),
  ]);
}
