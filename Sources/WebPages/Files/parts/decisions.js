// A campaign's timeline, read on from where it was read to.
import { h, render } from '../core/dom.js';
import { get } from '../core/api.js';
import { count } from '../core/format.js';
import { isTurn, timeline } from './timeline.js';

const PAGE = 1000, SHOWN = 200;

export function decisions(tenant, path) {
  const place = h('div'), rows = [];
  let all = false, isReading = false, isAskedAgain = false, wanted, shownAt = null;
  const all_ = h('input', { type: 'checkbox', onchange: () => { all = all_.checked; draw(shownAt); } });
  const element = h('section', { class: 'card', 'aria-label': 'Timeline' },
    h('header', { class: 'head' }, h('h2', null, 'What was decided, and why'),
      h('label', { class: 'end check' }, all_, 'every batch')), place);

  function draw(at) {
    shownAt = at;
    const shown = (all ? rows : rows.filter(isTurn)).slice(-SHOWN).reverse();
    render(place, rows.length === 0 && h('p', { class: 'muted' }, 'Nothing yet.'), timeline(tenant, shown, at),
      all && rows.length > SHOWN && h('p', { class: 'muted' }, `The last ${SHOWN} of ${count(rows.length)}.`));
  }

  const told = { element, rows, draw, more, changed: () => {} };

  /** @param position a decision that must be among them: the timeline's rows may come after the campaign's own */
  async function more(position) {
    wanted = position ?? wanted;
    isAskedAgain = isReading;
    if (isReading) return;
    isReading = true;
    try {
      for (;;) {
        isAskedAgain = false;
        const page = await get(`${path}/timeline`, { after: rows.at(-1)?.position, limit: PAGE, min_position: wanted });
        rows.push(...page.items);
        if (page.items.length > 0) told.changed();
        if (!isAskedAgain && (page.next === null || page.next === undefined)) break;
      }
    } catch { /* Asked again with the next change. */ }
    isReading = false;
  }

  more();
  return told;
}
