// A table of as many rows as there are: pages are fetched as one scrolls, and only what can be seen is in the document.
// One stop for the Tab key; arrows, Page, Home and End move, Enter opens.
import { h, render, onceAFrame } from '../core/dom.js';
import { count } from '../core/format.js';

const ROW = 36, MARGIN = 12;

export class Table {
  /**
   * @param columns [{title, cell(row), class}]; `class` "wide" is left out on narrow screens
   * @param key(row) what a row is known by; href(row) where Enter and a click lead, or null
   * @param load(after, limit) → {items, next}
   */
  constructor({ label, columns, key, href = () => null, load, empty = 'Nothing here.', limit = 500 }) {
    Object.assign(this, { columns, key, href, load, empty, limit });
    this.body = h('tbody');
    this.foot = h('p', { class: 'table-foot', role: 'status' });
    this.grid = h('table', { role: 'grid', tabindex: 0, 'aria-label': label, onkeydown: (event) => this.move(event) },
      h('thead', null, h('tr', null, columns.map((column) => h('th', { class: column.class, scope: 'col' }, column.title)))),
      this.body);
    this.scroller = h('div', { class: 'scroller' }, this.grid);
    this.element = h('div', { class: 'table' }, this.scroller, this.foot);
    this.draw = onceAFrame(() => this.drawNow());
    this.scroller.addEventListener('scroll', this.draw, { passive: true });
    this.scroller.addEventListener('pointerdown', (event) => this.choose(event));
    new ResizeObserver(this.draw).observe(this.scroller);
    this.generation = 0;
    this.clear();
  }

  clear() {
    Object.assign(this, { rows: [], pages: [], next: null, isComplete: false, active: -1, failure: null });
  }

  /** From the beginning, as after another filter. What is shown stays until the answer is there. */
  async reload() {
    const generation = ++this.generation;
    this.loading = true;
    this.draw();
    try {
      const page = await this.load(null, this.limit);
      if (generation !== this.generation) return;
      this.clear();
      this.take(null, page);
      this.scroller.scrollTop = 0;
    } catch (error) {
      if (generation !== this.generation || error.name === 'AbortError') return;
      this.clear();
      this.failure = error;
    }
    this.loading = false;
    this.draw();
  }

  /** Asks again for what can be seen. */
  async refresh() {
    if (this.loading || this.failure) { if (this.failure) await this.reload(); return; }
    if (this.pages.length === 0) { await this.reload(); return; }
    const generation = this.generation, [first] = this.window();
    const page = this.pages.findLast((one) => one.start <= first) ?? this.pages[0];
    const answer = await this.load(page.after, this.limit).catch(() => null);
    if (!answer || generation !== this.generation) return;
    const isLast = page === this.pages.at(-1);
    this.rows.splice(page.start, isLast ? Infinity : page.count, ...answer.items);
    if (isLast) {
      page.count = answer.items.length;
      this.next = answer.next;
      this.isComplete = answer.next === null;
    } else if (answer.items.length !== page.count) { await this.reload(); return; }
    this.draw();
  }

  take(after, page) {
    this.pages.push({ after, start: this.rows.length, count: page.items.length });
    this.rows.push(...page.items);
    this.next = page.next ?? null;
    this.isComplete = this.next === null;
  }

  async more() {
    if (this.loading || this.isComplete || this.failure) return;
    const generation = this.generation;
    this.loading = true;
    try {
      const after = this.next, page = await this.load(after, this.limit);
      if (generation === this.generation) this.take(after, page);
    } catch (error) {
      if (generation === this.generation) this.failure = error;
    }
    if (generation === this.generation) this.loading = false;
    this.draw();
  }

  window() {
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - MARGIN);
    return [first, Math.min(this.rows.length, first + Math.ceil((this.scroller.clientHeight || 400) / ROW) + 2 * MARGIN)];
  }

  drawNow() {
    const [first, last] = this.window();
    const space = (rows) => rows > 0 && h('tr', { key: rows === first ? 'above' : 'below', class: 'space', 'aria-hidden': 'true' },
      h('td', { colspan: this.columns.length, style: { height: `${rows * ROW}px` } }));
    this.grid.setAttribute('aria-rowcount', this.isComplete ? this.rows.length + 1 : -1);
    if (this.active >= first && this.active < last) this.grid.setAttribute('aria-activedescendant', this.rowID(this.active));
    else this.grid.removeAttribute('aria-activedescendant');
    render(this.body, space(first), this.rows.slice(first, last).map((row, index) => this.row(row, first + index)),
      last < this.rows.length && space(this.rows.length - last));
    render(this.foot, this.said());
    if (last + 4 * MARGIN >= this.rows.length) this.more();
  }

  said() {
    if (this.failure) {
      return [h('span', { class: 'refusal' }, this.failure.message), h('button', { onclick: () => this.reload() }, 'Try again')];
    }
    if (this.loading && this.rows.length === 0) return 'Loading…';
    if (this.rows.length === 0) return this.empty;
    return this.isComplete ? `${count(this.rows.length)} in all` : `${count(this.rows.length)} loaded, more below`;
  }

  rowID(index) { return `row-${index}`; }

  row(row, index) {
    const href = this.href(row);
    return h('tr', {
      key: this.key(row), id: this.rowID(index), 'aria-rowindex': index + 2, 'data-index': index,
      class: index === this.active ? 'active' : null, 'aria-selected': index === this.active ? 'true' : null,
    }, this.columns.map((column, place) => h('td', { class: column.class, role: 'gridcell' },
      place === 0 && href ? h('a', { href, tabindex: -1 }, column.cell(row)) : column.cell(row))));
  }

  choose(event) {
    const row = event.target.closest('tr[data-index]');
    if (!row) return;
    this.active = Number(row.dataset.index);
    this.draw();
  }

  move(event) {
    const page = Math.max(1, Math.floor(this.scroller.clientHeight / ROW) - 2);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === 'Enter' && this.active >= 0 && event.target === this.grid) {
      const href = this.href(this.rows[this.active]);
      if (href) location.assign(href);
      return;
    }
    if (step === undefined || this.rows.length === 0) return;
    event.preventDefault();
    this.active = Math.min(this.rows.length - 1, Math.max(0, this.active + step));
    const top = this.active * ROW, { scrollTop, clientHeight } = this.scroller;
    if (top < scrollTop) this.scroller.scrollTop = top;
    else if (top + 2 * ROW > scrollTop + clientHeight) this.scroller.scrollTop = top + 2 * ROW - clientHeight;
    this.draw();
  }
}
