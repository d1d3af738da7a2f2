// Why devices failed: by kind and by what they said, most frequent first. A click shows the devices.
import { h, render } from '../core/dom.js';
import { get } from '../core/api.js';
import { count, percent } from '../core/format.js';
import { words } from './status.js';

let asked = '', rows = [];

export async function failures(place, path, row, isPast, parts) {
  draw();
  const state = `${path} ${row.failed}`;
  if (state === asked || row.failed === 0) return;
  asked = state;
  try { rows = (await get(`${path}/failures`)).items; } catch { asked = ''; }
  draw();

  function draw() {
    if (row.failed === 0) [rows, asked] = [[], ''];
    const all = rows.reduce((sum, one) => sum + one.devices, 0), most = Math.max(1, ...rows.map((one) => one.devices));
    render(place,
      h('h2', null, 'Why devices failed', isPast && h('small', null, 'as of now')),
      rows.length === 0 && h('p', { class: 'muted' }, row.failed > 0 ? 'Loading…' : 'None has.'),
      h('ul', { class: 'bars' }, rows.slice(0, 8).map((one, index) => h('li', { key: index },
        h('button', { class: 'bar-row', onclick: () => parts.only(one.status) },
          h('span', { class: 'bar-of bad', style: { width: `${(one.devices / most) * 100}%` } }),
          h('span', { class: 'bar-text' }, h('b', null, words(one.failure_kind ?? one.status)), ' ',
            h('span', { class: 'muted cut' }, one.error ?? '')),
          h('span', { class: 'bar-count' }, count(one.devices), h('small', null, ` ${percent(one.devices / all)}`)))))));
  }
}
