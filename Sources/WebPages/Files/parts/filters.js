// Filters of a list, kept in the address: a status, and the beginning of a device's id.
import { h, render, whenQuiet } from '../core/dom.js';
import { words } from './status.js';

/**
 * @param changed() called after a change
 * @returns {search, chips, values}: two elements, and values() as the API takes them
 */
export function filters(query, statuses, changed) {
  let status = statuses.includes(query.get('status')) ? query.get('status') : null;
  const search = h('input', {
    type: 'search', placeholder: 'Device begins with…', 'aria-label': 'Device begins with', spellcheck: 'false',
    value: query.get('search') ?? '', oninput: whenQuiet(200, () => apply()),
  });
  const chips = h('div', { class: 'chips', role: 'group', 'aria-label': 'Status' });
  const values = () => ({ status, search: search.value.trim() });
  const draw = () => render(chips, [null, ...statuses].map((one) => h('button', {
    class: 'chip', 'aria-pressed': String(one === status), onclick: () => { status = one; apply(); },
  }, one ? words(one) : 'All')));
  function apply() {
    const url = new URL(location.href);
    for (const [name, value] of Object.entries(values())) {
      if (value) url.searchParams.set(name, value); else url.searchParams.delete(name);
    }
    history.replaceState(null, '', url);
    draw();
    changed();
  }
  draw();
  return { search, chips, values };
}
