// Fields of forms: a label and its input, and what was typed as a value of its kind.
import { h } from '../core/dom.js';

/** `options` are the input's attributes; `help` stands below it. */
export function field(label, name, options = {}, help = null) {
  const input = h('input', { name, autocomplete: 'off', ...options });
  return h('label', { class: 'field' }, h('span', null, label), input, help && h('small', null, help));
}

/** `choices`: [[value, text]]. */
export const choice = (label, name, choices, options = {}) => h('label', { class: 'field' }, h('span', null, label),
  h('select', { name, ...options }, choices.map(([value, text]) => h('option', { value }, text))));

export const text = (form, name) => form.elements[name].value.trim() || null;

/** A number, or null when nothing was typed. */
export function number(form, name) {
  const typed = form.elements[name].value.trim();
  return typed === '' ? null : Number(typed);
}

const UNITS = { s: 1, min: 60, m: 60, h: 3600, d: 86400 };

/** "90", "90 s", "10 min", "2 h 30 min", "1 d" as seconds; NaN for anything else. */
export function seconds(typed) {
  const trimmed = typed.trim();
  if (/^\d+(\.\d+)?$/.test(trimmed)) return Number(trimmed);
  const parts = [...trimmed.matchAll(/(\d+(?:\.\d+)?)\s*(min|s|m|h|d)\s*/g)];
  if (parts.length === 0 || parts.map(([all]) => all).join('') !== trimmed) return NaN;
  return parts.reduce((sum, [, value, unit]) => sum + Number(value) * UNITS[unit], 0);
}

/** A length of time; null when nothing was typed. */
export function time(form, name) {
  const input = form.elements[name], typed = input.value.trim();
  if (typed === '') return null;
  const value = seconds(typed);
  input.setCustomValidity(Number.isNaN(value) ? 'A length of time, such as 90 s, 10 min or 2 h' : '');
  return value;
}

/** Ids out of text: one a line, or between commas. */
export const ids = (typed) => [...new Set(typed.split(/[\s,;]+/).filter(Boolean))];

/** What is left out is not sent: the server's own default holds. */
export function given(object) {
  const entries = Object.entries(object).filter(([, value]) => value !== null && value !== undefined);
  return entries.length > 0 ? Object.fromEntries(entries) : null;
}
