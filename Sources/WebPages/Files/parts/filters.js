// Filters of a list: a status, and the beginning of a device's id.
import { h, render, whenQuiet } from '../core/dom.js';
import { words } from './status.js';

/**
 * @param query of the page, which has the filters in its address; null: not in the address
 * @param changed() called after a change
 * @returns {search, chips, values, only}: two elements, values() as the API takes them, and only(status) to filter by it
 */
export function filters(query, statuses, changed) {
  let status = statuses.includes(query?.get('status')) ? query.get('status') : null;
  const search = h('input', {
    type: 'search', placeholder: 'Device begins with…', 'aria-label': 'Device begins with', spellcheck: 'false',
    value: query?.get('search') ?? '', oninput: whenQuiet(200, () => apply()),
  });
  const chips = h('div', { class: 'chips', role: 'group', 'aria-label': 'Status' });
  const values = () => ({ status, search: search.value.trim() });
  const draw = () => render(chips, [null, ...statuses].map((one) => h('button', {
    class: 'chip', 'aria-pressed': String(one === status), onclick: () => only(one),
  }, one ? words(one) : 'All')));
  const only = (one) => { status = one; apply(); };
  function apply() {
    if (query) keep();
    draw();
    changed();
  }
  function keep() {
    const url = new URL(location.href);
    for (const [name, value] of Object.entries(values())) {
      if (value) url.searchParams.set(name, value); else url.searchParams.delete(name);
    }
    history.replaceState(null, '', url);
  }
  draw();
  return { search, chips, values, only };
}
