// One campaign: how it stands now or stood at a moment, how it got there, and what can be done about it.
import { h, render } from '../core/dom.js';
import { get, tenantPath } from '../core/api.js';
import { listPage } from '../core/addresses.js';
import { follow } from '../core/live.js';
import { goToLogin } from '../core/session.js';
import { count, duration, many, moment, percent, when } from '../core/format.js';
import { CAMPAIGN_SHARES, campaignCounts, legend, meter } from '../parts/meter.js';
import { status as label } from '../parts/status.js';
import { eventLink } from '../parts/event.js';
import { momentBar } from '../parts/moments.js';
import { pointsOf, progressChart } from '../parts/progress.js';
import { isTurn, timelineKind, timelineTitle } from '../parts/timeline.js';
import { actions } from '../parts/actions.js';
import { stages, planFacts } from '../parts/stages.js';
import { failures } from '../parts/failures.js';
import { partsTable } from '../parts/parts-table.js';
import { decisions } from '../parts/decisions.js';

export async function show(main, [tenant, id]) {
  const path = tenantPath(tenant, 'campaigns', id);
  let now = await get(path), past = null;
  document.title = `${now.name} · Refold`;

  const head = h('header', { class: 'head campaign' });
  const standing = h('section', { class: 'card span', 'aria-label': 'Standing' });
  const chart = progressChart();
  const stagePlace = h('section', { class: 'card' }), failurePlace = h('section', { class: 'card span' });
  const planPlace = h('section', { class: 'card' });
  const parts = partsTable(tenant, id);
  const told = decisions(tenant, path);
  const moments = momentBar(async (at) => {
    past = null;
    if (at !== null) {
      try { past = await get(path, { at }); } catch (error) { past = { error }; }
    }
    draw();
  });
  const chartPlace = h('section', { class: 'card span' }, h('h2', null, 'Progress'), chart.element);
  render(main, head, moments.element, standing,
    h('div', { class: 'grid' }, chartPlace, stagePlace, failurePlace, planPlace), parts.element, told.element);

  let series = [];
  const changed = () => refresh(path, now).then((answer) => {
    ({ now, series } = answer);
    told.more(now.last_position);
    draw();
  });

  function draw() {
    const shown = past && !past.error ? past : now, at = moments.at;
    const begin = Date.parse(now.started_at ?? now.created_at);
    const end = now.completed_at ? Date.parse(now.completed_at) : Date.now();
    const marks = told.rows.filter(isTurn).map((row) =>
      ({ time: Date.parse(row.at), kind: timelineKind(row), text: timelineTitle(row) }));
    const last = Math.max(end, ...marks.map((mark) => mark.time));
    moments.over(Date.parse(now.created_at), now.completed_at ? last : Date.now(), marks);
    render(head, heading(tenant, { ...shown, firmware_version: now.firmware_version }, at), actions(path, now, changed));
    render(standing, standingOf(tenant, shown, past?.error, at));
    chart.update({
      points: curve(series, now, begin, last), from: begin, to: last, total: now.total_devices,
      marks: marks.filter((mark) => mark.time >= begin), at: at === null ? null : Math.max(begin, Math.min(last, at)),
    });
    render(stagePlace, stages(shown, told.rows));
    render(planPlace, planFacts(shown));
    failures(failurePlace, path, now, at !== null, parts);
    parts.over(at);
    told.draw(at);
  }

  told.changed = draw;
  moments.begin();
  if (moments.at !== null) past = await get(path, { at: new Date(moments.at).toISOString() }).catch((error) => ({ error }));
  await changed();
  follow(`${path}/events/stream`, 'campaign', () => get(path), (row) => {
    const isNews = JSON.stringify(row) !== JSON.stringify(now);
    now = row;
    draw();
    if (isNews) { told.more(row.last_position); parts.refresh(); refreshSeries(); }
  }, (error) => { if (error.status === 401) goToLogin(); });

  let asked = 0;
  async function refreshSeries() {
    if (Date.now() - asked < 1500) return;
    asked = Date.now();
    series = (await get(`${path}/progress`)).items;
    draw();
  }
}

/** From nothing at the beginning to how it stands at the end: what a minute has not yet told is in the campaign's row. */
function curve(series, row, begin, end) {
  const counts = campaignCounts(row), nothing = { succeeded: 0, failed: 0, skipped: 0, in_flight: 0 };
  return [{ time: begin, ...nothing }, ...pointsOf(series, row.total_devices).filter((point) => point.time > begin && point.time < end),
    { ...counts, time: end }];
}

async function refresh(path, before) {
  const [now, progress] = await Promise.all([
    get(path).catch(() => before), get(`${path}/progress`).catch(() => ({ items: [] })),
  ]);
  return { now, series: progress.items };
}

function heading(tenant, row, at) {
  const took = row.started_at && ((row.completed_at ? Date.parse(row.completed_at) : at ?? Date.now()) - Date.parse(row.started_at)) / 1000;
  const version = row.firmware_version ?? `firmware #${row.firmware_version_id}`;
  return h('div', { class: 'title' },
    h('p', { class: 'crumbs' }, 
      h('a', { href: listPage('/campaigns', tenant) }, 'Campaigns'), ' / ', tenant, ` / ${row.id}`),
    h('h1', null, row.name, ' ', label(row.status)),
    h('p', { class: 'muted' },
      [h('b', null, version), ` to ${many(row.total_devices, 'device')}`, row.rollout_strategy,
        row.started_at ? ['started ', when(row.started_at)] : ['created ', when(row.created_at), ` by ${row.created_by}`],
        took > 0 && `${row.completed_at ? 'took' : 'for'} ${duration(took)}`]
        .filter(Boolean).map((text, index) => [index > 0 ? ' · ' : '', text])));
}

function standingOf(tenant, row, error, at) {
  const counts = campaignCounts(row), results = counts.succeeded + counts.failed;
  const ended = counts.total - counts.pending - counts.in_flight;
  return [
    error && h('p', { class: 'refusal' }, `${moment(at)}: ${error.message}`),
    h('div', { class: 'figures' },
      figure(percent(ended / counts.total), 'ended', `${count(ended)} of ${count(counts.total)}`),
      figure(results > 0 ? percent(counts.failed / results) : '–', 'of the results failed',
        row.abort_threshold === null || row.abort_threshold === undefined ? 'no threshold' : `threshold ${percent(row.abort_threshold)}`,
        row.abort_threshold !== null && results > 0 && counts.failed / results > row.abort_threshold),
      figure(count(counts.in_flight), 'in flight', `${count(counts.pending)} still to be sent for`)),
    meter(counts, CAMPAIGN_SHARES, { label: 'Devices' }), legend(counts, CAMPAIGN_SHARES),
    row.status_reason && h('p', { class: `why ${{ ABORTED: 'bad', PAUSED: 'warn' }[row.status] ?? ''}` },
      h('b', null, row.status_by === 'engine' ? 'The engine: ' : `${row.status_by}: `), row.status_reason, ' ',
      row.status_code && h('code', null, row.status_code), ' ', eventLink(tenant, row.status_cause)),
  ];
}

const figure = (value, name, more, isBad = false) => h('div', { class: isBad ? 'figure-of bad' : 'figure-of' },
  h('b', null, value), h('span', null, name), h('small', null, more));
