// Numbers, times and sizes for people. A missing value is a dash.
import { h } from './dom.js';

export const DASH = '–';
const isMissing = (value) => value === null || value === undefined || Number.isNaN(value);
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });

/** 1,234,567 */
export const count = (value) => isMissing(value) ? DASH : whole.format(value);

/** 999 · 12.3k · 4.56M */
export function compact(value) {
  if (isMissing(value)) return DASH;
  for (const [size, unit] of [[1e9, 'G'], [1e6, 'M'], [1e4, 'k']]) {
    if (Math.abs(value) >= size) {
      const scaled = value / (unit === 'k' ? 1e3 : size);
      return scaled.toFixed(scaled >= 100 ? 0 : 1) + unit;
    }
  }
  return Number.isInteger(value) || Math.abs(value) >= 100 ? whole.format(value) : value.toFixed(1);
}

/** A share of 1: 12.3 % */
export function percent(value, digits) {
  if (isMissing(value) || !Number.isFinite(value)) return DASH;
  const shown = value * 100;
  return shown.toFixed(digits ?? (shown === 0 || shown >= 99.95 || Number.isInteger(shown) ? 0 : shown < 1 ? 2 : 1)) + ' %';
}

/** 3.4 GB */
export function bytes(value) {
  if (isMissing(value)) return DASH;
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return (unit === 0 || value >= 100 ? value.toFixed(0) : value.toFixed(1)) + ' ' + units[unit];
}

/** 350 ms · 4.2 s · 12 min 5 s · 3 h 20 min · 4 d 2 h */
export function duration(seconds) {
  if (isMissing(seconds)) return DASH;
  if (seconds <= 0) return '0 s';
  if (seconds < 1) return Math.round(seconds * 1000) + ' ms';
  if (seconds < 60) return (seconds < 10 && !Number.isInteger(seconds) ? seconds.toFixed(1) : Math.round(seconds)) + ' s';
  const total = Math.round(seconds);
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  for (let index = 0; index < 3; index += 1) {
    const [size, unit] = parts[index], [less, lesser] = parts[index + 1];
    if (total < size) continue;
    const rest = Math.floor((total % size) / less);
    return `${Math.floor(total / size)} ${unit}` + (rest > 0 ? ` ${rest} ${lesser}` : '');
  }
  return total + ' s';
}

const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const dayAndYear = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric' });

/** 14:03:59 today, 3 Mar 14:03:59 before, in the reader's own zone. */
export function moment(text, now = new Date()) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return DASH;
  if (date.toDateString() === now.toDateString()) return clock.format(date);
  return (date.getFullYear() === now.getFullYear() ? day : dayAndYear).format(date) + ' ' + clock.format(date);
}

/** 4 min ago */
export function ago(text, now = Date.now()) {
  const seconds = (now - Date.parse(text)) / 1000;
  if (Number.isNaN(seconds)) return DASH;
  if (seconds < -5) return 'in ' + duration(-seconds).split(' ').slice(0, 2).join(' ');
  if (seconds < 2) return 'now';
  return duration(Math.round(seconds)).split(' ').slice(0, 2).join(' ') + ' ago';
}

/** A time for people, with the exact one in UTC when pointed at. */
export function when(text, shown = moment) {
  if (isMissing(text)) return h('span', { class: 'faint' }, DASH);
  return h('time', { datetime: text, title: text }, shown(text));
}

/** One thing, many things. */
export const many = (number, one, more = one + 's') => `${count(number)} ${number === 1 ? one : more}`;
