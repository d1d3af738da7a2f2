// What an operator can do to a campaign, each with what it will mean.
import { h } from '../core/dom.js';
import { post, remove } from '../core/api.js';
import { count, many } from '../core/format.js';
import { isSignedIn, mayOperate } from '../core/session.js';
import { onKey } from '../core/keys.js';
import { campaignCounts } from './meter.js';
import { confirm } from './confirm.js';
import { notice } from './notice.js';

/** Verbs by the statuses they are for. */
const VERBS = [
  { verb: 'start', text: 'Start', from: ['CREATED'], kind: 'primary', key: 's' },
  { verb: 'resume', text: 'Resume', from: ['PAUSED'], kind: 'primary', key: 'r' },
  { verb: 'pause', text: 'Pause', from: ['RUNNING'], kind: '', key: 'p' },
  { verb: 'retry', text: 'Retry failed', from: ['RUNNING', 'PAUSED', 'COMPLETED', 'ABORTED'], kind: '', key: 'y' },
  { verb: 'abort', text: 'Abort', from: ['RUNNING', 'PAUSED'], kind: 'danger', key: 'a' },
  { verb: 'delete', text: 'Delete', from: ['CREATED'], kind: 'danger', key: null },
];
let hasKeys = false;

export function actions(path, row, changed) {
  if (!mayOperate()) return h('p', { class: 'muted actions' }, isSignedIn() ? 'Your token may look, and not act.' : 'Sign in to act.');
  const possible = VERBS.filter((one) => one.from.includes(row.status) && (one.verb !== 'retry' || row.failed > 0));
  if (!hasKeys) {
    hasKeys = true;
    for (const one of VERBS.filter((verb) => verb.key)) {
      onKey(one.key, `${one.text} the campaign`, () => document.querySelector(`[data-verb="${one.verb}"]`)?.click());
    }
  }
  return h('div', { class: 'actions' }, possible.map((one) => h('button', {
    key: one.verb, class: one.kind, 'data-verb': one.verb, onclick: () => ask(one, path, row, changed),
  }, one.text)));
}

function ask({ verb, text, kind }, path, row, changed) {
  const counts = campaignCounts(row);
  confirm({
    title: `${text}: ${row.name}`, verb: text, danger: kind === 'danger', text: meaning(verb, counts),
    reason: ['pause', 'abort'].includes(verb),
    word: verb === 'abort' && counts.total >= 1000 ? 'abort' : null,
  }, async (reason) => {
    if (verb === 'delete') await remove(path);
    else await post(`${path}/${verb}`, reason ? { reason } : {});
    notice(`${row.name}: ${PAST[verb]}`);
    if (verb === 'delete') location.assign('/campaigns'); else await changed();
  });
}

const PAST = {
  start: 'started', resume: 'resumed', pause: 'paused', retry: 'failed devices are tried again', abort: 'aborted', delete: 'deleted',
};

function meaning(verb, counts) {
  const flight = counts.in_flight === 0 ? 'No device is in flight.'
    : counts.in_flight === 1 ? '1 device in flight goes on, and its result counts.'
      : `${count(counts.in_flight)} devices in flight go on, and their results count.`;
  switch (verb) {
  case 'start': return h('p', null, `Devices are sent for from now on, as planned: ${count(counts.total)} in all.`);
  case 'resume': return h('p', null, `${many(counts.pending, 'device')} will be sent for, as planned.`);
  case 'pause': return [h('p', null, `No further device is sent for; ${count(counts.pending)} wait.`), h('p', null, flight)];
  case 'retry': return h('p', null, `${many(counts.failed, 'failed device')} will be sent for again.`);
  case 'abort': return [
    h('p', null, `What has not been sent for is skipped: ${many(counts.pending, 'device')}. This cannot be taken back.`),
    h('p', null, flight)];
  default: return h('p', null, 'It has not been started, and nothing of it will remain but the record.');
  }
}
