// The stages of a campaign, and the rules it goes by.
import { h } from '../core/dom.js';
import { count, duration, percent, when } from '../core/format.js';
import { meter, campaignCounts } from './meter.js';

const STAGE = [['done', 'Ended', 'good'], ['rest', 'To come', 'idle']];

export function stages(row, told) {
  const plan = row.plan ?? {};
  const all = plan.stages?.length > 0 ? plan.stages : [{ percent: 100 }];
  const begun = new Map(told.filter((one) => one.event_type === 'stage_begun').map((one) => [one.stage, one]));
  const counts = campaignCounts(row), ended = counts.total - counts.pending - counts.in_flight;
  let from = 0;
  return [
    h('h2', null, 'Stages', h('small', null, row.rollout_rate
      ? `${count(row.rollout_rate)} devices every ${duration(plan.tick_seconds ?? 10)}` : 'as fast as it goes')),
    h('ol', { class: 'stages' }, all.map((stage, index) => {
      const to = Math.min(counts.total, Math.ceil(counts.total * stage.percent / 100));
      const size = Math.max(0, to - from), done = Math.max(0, Math.min(size, ended - from));
      from = to;
      const state = stateOf(row, index, all.length);
      return h('li', { key: index, class: state, 'aria-current': state === 'current' ? 'step' : null },
        h('div', { class: 'line' }, h('b', null, percent(stage.percent / 100)), h('span', null, `to ${count(to)}`),
          h('span', { class: 'end muted' }, begun.has(index) ? when(begun.get(index).at) : '')),
        meter({ done, rest: size - done }, STAGE, { thin: true, label: `Stage ${index + 1}` }),
        h('small', { class: 'muted' }, [
          stage.soak_seconds > 0 && `then waits ${duration(stage.soak_seconds)}`,
          stage.success_min !== null && stage.success_min !== undefined && `needs ${percent(stage.success_min)} success`,
        ].filter(Boolean).join(', ')));
    })),
  ];
}

function stateOf(row, index, length) {
  if (row.status === 'COMPLETED') return 'past';
  if (row.status === 'CREATED') return 'coming';
  const current = row.stage ?? (length === 1 ? 0 : -1);
  return index < current ? 'past' : index === current ? 'current' : 'coming';
}

export function planFacts(row) {
  const plan = row.plan ?? {}, abort = plan.abort ?? {}, times = plan.timeouts ?? {}, retry = plan.retry ?? {};
  const threshold = row.abort_threshold ?? null, isJudged = threshold !== null && abort.method !== 'none';
  const facts = [
    ['Stops by itself', !isJudged ? 'never'
      : `${abort.action === 'pause' ? 'pauses' : 'aborts'} when more than ${percent(row.abort_threshold)} fail`],
    ['Judged by', isJudged && (abort.method === 'ratio' ? 'the plain ratio' : 'a test that is wrong once in 100 campaigns')],
    ['Needs', abort.results_min > 1 ? `${count(abort.results_min)} results` : null],
    ['Or after', abort.consecutive_failures_max ? `${count(abort.consecutive_failures_max)} failures in a row` : null],
    ['Order', { listed: 'as listed', shuffled: 'a fair sample' }[plan.order ?? 'listed']],
    ['Windows', plan.windows?.length > 0 ? `${plan.windows.map(windowText).join('; ')} (${plan.time_zone ?? 'UTC'})` : 'at any time'],
    ['Waits for an answer', duration(times.acknowledge_seconds ?? 86400)], ['to download', duration(times.download_seconds ?? 7200)],
    ['to install', duration(times.install_seconds ?? 3600)], ['Ends after', duration(times.campaign_seconds ?? 2592000)],
    ['Attempts', retry.attempts_max > 1 ? `${retry.attempts_max}, ${duration(retry.backoff_seconds)} apart at first` : 'one'],
    ['Complete', plan.completion?.share < 1 ? `at ${percent(plan.completion.share)} after ${duration(plan.completion.seconds)}`
      : 'when every device has ended'],
    ['Success', plan.verify ? `seen in the ${plan.verify}` : 'as the device says'],
    ['Delivery', { queue: 'at once', retained: 'retained', on_connect: 'when the device shows itself' }[plan.delivery ?? 'queue']],
  ];
  return [h('h2', null, 'Plan'), h('dl', { class: 'facts' },
    facts.filter(([, value]) => value).map(([name, value]) => [h('dt', null, name), h('dd', null, value)]))];
}

const windowText = (one) => `${one.days?.length > 0 ? one.days.join(', ') + ' ' : ''}${one.from}–${one.to}`;
