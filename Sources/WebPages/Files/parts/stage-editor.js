// Rows of canary stages: share, soak, success needed.
import { h, render } from '../core/dom.js';
import { seconds } from './fields.js';

const DEFAULTS = [['1', '10 min', ''], ['10', '30 min', ''], ['50', '1 h', ''], ['100', '', '']];

export function stageEditor() {
  let rows = DEFAULTS.map((row) => [...row]);
  const place = h('div', { class: 'stack' });

  function input(index, column, label, options) {
    return h('label', { class: 'field' }, index === 0 && h('span', null, label), h('input', {
      'aria-label': `Stage ${index + 1}: ${label}`, value: rows[index][column], ...options,
      oninput: (event) => { rows[index][column] = event.target.value; },
    }));
  }

  function draw() {
    render(place, rows.map((_, index) => h('div', { class: 'stage-edit' },
      input(index, 0, 'Share in %', { type: 'number', min: 0.001, max: 100, step: 'any', required: true }),
      input(index, 1, 'Then wait', { placeholder: '0 s' }),
      input(index, 2, 'Success in %', { type: 'number', min: 0, max: 100, step: 'any', placeholder: 'by threshold' }),
      h('button', {
        type: 'button', class: 'ghost', 'aria-label': `Remove stage ${index + 1}`, disabled: rows.length === 1,
        onclick: () => { rows = rows.filter((_row, other) => other !== index); redraw(); },
      }, '✕'))),
    h('div', null, h('button', { type: 'button', onclick: () => { rows.push(['100', '', '']); redraw(); } }, 'Add a stage')));
  }
  // The inputs' own values follow the rows, not what was typed in their place before.
  function redraw() { render(place); draw(); }

  draw();
  return {
    element: place,
    value: () => rows.map(([share, soak, success]) => ({
      percent: Number(share), soak_seconds: soak.trim() === '' ? 0 : seconds(soak),
      ...(success.trim() === '' ? {} : { success_min: Number(success) / 100 }),
    })),
  };
}
