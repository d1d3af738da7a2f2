// A campaign over time: how many devices had succeeded, had failed, were skipped or in flight; with what was decided as
// marks, and the chosen moment as a line. Arrow keys move the reading line.
import { h, s, render } from '../core/dom.js';
import { compact, count, moment } from '../core/format.js';

const HEIGHT = 220, LEFT = 46, RIGHT = 18, TOP = 18, BOTTOM = 24;
const BANDS = [['succeeded', 'Succeeded', 'good'], ['failed', 'Failed', 'bad'], ['skipped', 'Skipped', 'skip'],
  ['in_flight', 'In flight', 'busy']];

/** Points for the chart out of the API's series; an attempt that was begun again was also sent for again. */
export function pointsOf(rows, total) {
  return rows.map(({ at, dispatched, succeeded, failed, skipped }) => ({
    time: Date.parse(at), succeeded, failed, skipped,
    in_flight: Math.max(0, Math.min(dispatched - succeeded - failed, total - succeeded - failed - skipped)),
  }));
}

export function progressChart() {
  const place = h('div', { class: 'chart', tabindex: 0, role: 'img' });
  const tip = h('div', { class: 'tip', hidden: true });
  const frame = h('div', { class: 'chart-frame' }, place, tip);
  let state = null, reading = null;

  function draw() {
    if (!state) return;
    const { points, from, to, total, marks, at } = state;
    const width = Math.max(280, place.clientWidth || 640);
    const x = (time) => LEFT + ((time - from) / Math.max(1, to - from)) * (width - LEFT - RIGHT);
    const top = niceTop(Math.max(1, ...points.map((point) => BANDS.reduce((sum, [name]) => sum + point[name], 0)), total * 0.02));
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    const steps = points;
    let below = steps.map(() => 0);
    const bands = BANDS.map(([name, , kind]) => {
      const above = steps.map((point, index) => below[index] + point[name]);
      const up = above.map((value, index) => `${index ? 'L' : 'M'}${x(steps[index].time).toFixed(1)} ${y(value).toFixed(1)}`).join('');
      const down = [...below].reverse().map((value, index) =>
        `L${x(steps[steps.length - 1 - index].time).toFixed(1)} ${y(value).toFixed(1)}`).join('');
      below = above;
      return s('path', { class: `band ${kind}`, d: steps.length > 0 ? up + down + 'Z' : '' });
    });
    const read = reading === null ? null : steps[Math.min(reading, steps.length - 1)];
    place.setAttribute('aria-label', describe(steps.at(-1), total));
    render(place, s('svg', { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT },
      [0, 0.25, 0.5, 0.75, 1].map((share) => s('g', { class: 'grid' },
        s('line', { x1: LEFT, x2: width - RIGHT, y1: y(top * share), y2: y(top * share) }),
        s('text', { x: LEFT - 6, y: y(top * share) + 4, 'text-anchor': 'end' }, compact(top * share)))),
      bands,
      timeTicks(from, to, Math.max(2, Math.floor(width / 130))).filter((time) => x(time) < width - 22).map((time) =>
        s('text', { class: 'tick', x: x(time), y: HEIGHT - 7, 'text-anchor': 'middle' }, tickText(time, to - from))),
      marks.map((mark) => s('g', { class: `mark-at ${mark.kind}` },
        s('line', { x1: x(mark.time), x2: x(mark.time), y1: TOP - 4, y2: HEIGHT - BOTTOM }),
        s('circle', { cx: x(mark.time), cy: TOP - 7, r: 4 }, s('title', null, `${moment(mark.time)} ${mark.text}`)))),
      at !== null && s('line', { class: 'chosen', x1: x(at), x2: x(at), y1: TOP - 8, y2: HEIGHT - BOTTOM }),
      read && s('line', { class: 'reading', x1: x(read.time), x2: x(read.time), y1: TOP, y2: HEIGHT - BOTTOM })));
    tip.hidden = !read;
    if (read) {
      tip.style.setProperty('left', `${Math.min(width - 150, Math.max(0, x(read.time) + 10))}px`);
      render(tip, h('b', null, moment(read.time)), BANDS.map(([name, word, kind]) =>
        h('span', null, h('i', { class: `dot ${kind}` }), word, h('b', null, count(read[name])))));
    }
    place.onpointermove = (event) => {
      const time = from + ((event.offsetX - LEFT) / (width - LEFT - RIGHT)) * (to - from);
      reading = Math.max(0, steps.findLastIndex((point) => point.time <= time));
      draw();
    };
  }

  place.onpointerleave = () => { reading = null; draw(); };
  place.onblur = place.onpointerleave;
  place.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !state?.points.length) return;
    event.preventDefault();
    reading = Math.min(state.points.length, Math.max(0, (reading ?? state.points.length) + step));
    draw();
  };
  new ResizeObserver(draw).observe(place);
  return {
    element: frame,
    update(next) { state = next; draw(); },
  };
}

function describe(last, total) {
  if (!last) return 'Progress over time: nothing yet.';
  const said = BANDS.map(([name, word]) => `${count(last[name])} ${word.toLowerCase()}`).join(', ');
  return `Progress over time. Of ${count(total)} devices ${said}.`;
}

/** The next number whose quarters are good to read; of devices there are no fractions. */
export function niceTop(value) {
  if (value <= 8) return value <= 4 ? 4 : 8;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 4, 5, 8, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

function timeTicks(from, to, most) {
  const seconds = (to - from) / 1000;
  const step = (STEPS.find((one) => seconds / one <= most) ?? 2592000) * 1000;
  const zone = new Date(from).getTimezoneOffset() * 60000;
  const ticks = [];
  for (let time = Math.ceil((from - zone) / step) * step + zone; time <= to; time += step) ticks.push(time);
  return ticks;
}

function tickText(time, span) {
  const date = new Date(time), two = (value) => String(value).padStart(2, '0');
  const hours = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (span < 600_000) return `${hours}:${two(date.getSeconds())}`;
  return span > 2 * 86_400_000 ? `${date.getDate()}.${date.getMonth() + 1}. ${hours}` : hours;
}
