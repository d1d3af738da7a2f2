// A slider over a stretch of time: what is shown is as of the moment chosen, or as of now. The moment is in the address
// too, so that it can be handed on.
import { h, render, whenQuiet } from '../core/dom.js';
import { moment } from '../core/format.js';

/** @param choose(time | null) is told the moment in RFC 3339, null for now. */
export function momentBar(choose) {
  let from = Date.now() - 3_600_000, to = Date.now(), marks = [], chosen = null;
  const told = whenQuiet(120, () => choose(chosen === null ? null : new Date(chosen).toISOString()));

  const range = h('input', { type: 'range', 'aria-label': 'As of', min: 0, max: 1000, step: 1, value: 1000 });
  const shown = h('output', { class: 'shown' });
  const list = h('div', { class: 'ticks', 'aria-hidden': 'true' });
  const exact = h('input', { type: 'datetime-local', step: 1, 'aria-label': 'Exact moment' });
  const now = h('button', { class: 'quiet', onclick: () => set(null) }, 'Now');
  const arrow = (text, name, direction) =>
    h('button', { class: 'quiet', title: name, 'aria-label': name, onclick: () => step(direction) }, text);
  const before = arrow('‹', 'The event before', -1), after = arrow('›', 'The event after', 1);
  const element = h('section', { class: 'moments', 'aria-label': 'The moment shown' },
    h('span', { class: 'label' }, 'As of'), shown, before,
    h('div', { class: 'track' }, list, range), after, exact, now);

  // The slider has a thousand steps, so that an arrow key moves sensibly over an hour and over a month.
  const timeOf = (value) => from + (value / 1000) * (to - from);
  range.oninput = () => set(Number(range.value) >= 1000 ? null : timeOf(Number(range.value)), false);
  exact.onchange = () => { const time = Date.parse(exact.value); if (!Number.isNaN(time)) set(time); };

  function step(direction) {
    const here = chosen ?? Infinity;
    const times = marks.map((mark) => mark.time);
    const next = direction < 0 ? times.findLast((time) => time < here - 500) : times.find((time) => time > here + 500);
    if (next !== undefined) set(next); else if (direction > 0) set(null);
  }

  function set(time, moves = true) {
    chosen = time;
    draw(moves);
    const url = new URL(location.href);
    if (time === null) url.searchParams.delete('at'); else url.searchParams.set('at', new Date(time).toISOString());
    history.replaceState(null, '', url);
    told();
  }

  function draw(moves) {
    element.classList.toggle('past', chosen !== null);
    render(shown, chosen === null ? 'now' : moment(chosen));
    now.disabled = chosen === null;
    if (moves) range.value = chosen === null ? 1000 : Math.round(((chosen - from) / Math.max(1, to - from)) * 1000);
    range.setAttribute('aria-valuetext', chosen === null ? 'now' : moment(chosen));
    if (document.activeElement !== exact) exact.value = chosen === null ? '' : local(chosen);
    render(list, marks.map((mark) => h('i', {
      class: mark.kind, style: { left: `${((mark.time - from) / Math.max(1, to - from)) * 100}%` },
    })));
  }

  return {
    element,
    get at() { return chosen; },
    /** The stretch that can be chosen from, and events in it: [{time, kind}]. */
    over(begin, end, events) {
      [from, to, marks] = [begin, Math.max(end, begin + 1000), events.filter((mark) => mark.time >= begin && mark.time <= end)];
      draw(document.activeElement !== range);
    },
    /** The moment in the address, when the page was opened with one. */
    begin() {
      const asked = Date.parse(new URLSearchParams(location.search).get('at') ?? '');
      if (!Number.isNaN(asked)) { chosen = asked; draw(true); }
      return chosen === null ? null : new Date(chosen).toISOString();
    },
  };
}

function local(time) {
  const date = new Date(time);
  return new Date(time - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}
