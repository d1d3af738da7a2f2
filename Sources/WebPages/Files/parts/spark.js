// A line over the last minutes, with its area: for tiles and table cells. Decoration: the figure beside it says it in words.
import { s } from '../core/dom.js';

/** `points`: [[x, y]], x ascending. The scale begins at 0 and ends at the largest, but not below `least`. */
export function spark(points, { from, to, least = 1, kind = 'accent', width = 240, height = 44 }) {
  const top = Math.max(least, ...points.map(([, y]) => y)) * 1.08;
  const x = (value) => ((value - from) / (to - from)) * width;
  const y = (value) => height - 1.5 - (value / top) * (height - 4);
  const line = points.map(([a, b], index) => `${index ? 'L' : 'M'}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join('');
  const first = points[0], last = points.at(-1);
  return s('svg', { class: `spark ${kind}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' },
    s('line', { class: 'base', x1: 0, x2: width, y1: height - 1, y2: height - 1 }),
    points.length > 1 && s('path', {
      class: 'area', d: `${line}L${x(last[0]).toFixed(1)} ${height - 1}L${x(first[0]).toFixed(1)} ${height - 1}Z`,
    }),
    points.length > 1 && s('path', { class: 'line', d: line }));
}
