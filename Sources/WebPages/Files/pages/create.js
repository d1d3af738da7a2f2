// A new campaign: what, to whom, how fast, and when it stops by itself.
import { h, render } from '../core/dom.js';
import { get, post, tenantPath } from '../core/api.js';
import { chooseTenant } from '../core/tenants.js';
import { goToLogin, mayOperate } from '../core/session.js';
import { count } from '../core/format.js';
import { choice, field, given, ids, number, text, time } from '../parts/fields.js';
import { stageEditor } from '../parts/stage-editor.js';

const card = (title, ...children) => h('section', { class: 'card' }, h('h2', null, title), children);
const SHARE = { type: 'number', min: 0, max: 100, step: 'any' };
const pairs = (...children) => h('div', { class: 'pairs' }, children);

export async function show(main) {
  if (!mayOperate()) { goToLogin(); return; }
  const { tenant, choice: tenantChoice } = await chooseTenant();
  const [firmware, groups] = await Promise.all([
    get(tenantPath(tenant, 'firmware'), { limit: 1000 }), get(tenantPath(tenant, 'groups'), { limit: 1000 }),
  ]);

  const stages = stageEditor();
  const refusal = h('p', { class: 'refusal', role: 'alert' });
  const listed = h('small', { class: 'muted' }, 'One id a line, or a file of them.');
  const devices = h('textarea', { name: 'devices', rows: 6, spellcheck: 'false', oninput: said });
  const file = h('input', { type: 'file', 'aria-label': 'File of device ids', accept: '.txt,.csv,text/plain', onchange: async () => {
    devices.value = await file.files[0].text();
    said();
  } });
  function said() { render(listed, `${count(ids(devices.value).length)} devices`); }
  const newFirmware = h('div', { class: 'stack', hidden: firmware.items.length > 0 },
    pairs(field('Version', 'version', { maxlength: 100 }), field('Device type', 'device_type', { maxlength: 100, placeholder: 'any' })),
    field('Address of the file', 'file_url', { type: 'url', maxlength: 2048, placeholder: 'https://…' }),
    field('SHA-256', 'checksum_sha256', { pattern: '[0-9A-Fa-f]{64}', spellcheck: 'false', placeholder: '64 hex digits' }));
  const list = h('div', { class: 'stack' }, h('label', { class: 'field' }, h('span', null, 'Devices'), devices), file, listed);
  const stagePlace = h('div', { hidden: true }, stages.element);

  const form = h('form', { class: 'stack', onsubmit: submit, oninput: adjust },
    h('header', { class: 'head' }, h('h1', null, 'New campaign'), tenantChoice),
    h('div', { class: 'form' },
      h('div', { class: 'column' },
        card('What',
          field('Name', 'name', { required: true, maxlength: 200 }),
          choice('Firmware', 'firmware', [...firmware.items.toReversed().map((row) =>
            [row.id, row.version + (row.device_type ? ` (${row.device_type})` : '')]), ['new', 'another one…']]),
          newFirmware),
        card('To whom',
          choice('Target', 'target', [['list', 'a list of devices'], ...groups.items.map((row) => [row.id, groupText(row)])]),
          list)),
      h('div', { class: 'column' },
        card('How fast',
          pairs(choice('Rollout', 'strategy', [['linear', 'all at one pace'], ['canary', 'in canary stages']]),
            choice('Order', 'order', [['listed', 'as listed'], ['shuffled', 'a fair sample']])),
          pairs(field('Devices a tick', 'rate', { type: 'number', min: 1, placeholder: 'no limit' }),
            field('Tick', 'tick', { placeholder: '10 s' })),
          stagePlace,
          pairs(field('Only from', 'window_from', { type: 'time' }), field('until', 'window_to', { type: 'time' }),
            field('Time zone', 'time_zone', { placeholder: 'the tenant’s' }))),
        card('When it stops by itself',
          pairs(field('Failures in %', 'threshold', { ...SHARE, placeholder: 'never' }),
            choice('It then', 'action', [['abort', 'is aborted'], ['pause', 'is paused']])),
          pairs(choice('Judged by', 'method', [['sequential', 'a test, wrong once in 100'], ['ratio', 'the plain ratio']]),
            field('With results', 'results_min', { type: 'number', min: 1, placeholder: '1' }),
            field('Failures in a row', 'consecutive', { type: 'number', min: 1, placeholder: 'any' })))),
      h('div', { class: 'column' },
        card('How long it waits',
          pairs(field('For an answer', 'acknowledge', { placeholder: '1 d' }), field('To download', 'download', { placeholder: '2 h' }),
            field('To install', 'install', { placeholder: '1 h' }), field('In all', 'campaign_seconds', { placeholder: '30 d' })),
          pairs(field('Attempts', 'attempts', { type: 'number', min: 1, max: 100, placeholder: '1' }),
            field('First pause', 'backoff', { placeholder: '5 min' }))),
        card('What counts as done',
          pairs(choice('Success', 'verify', [['', 'as the device says'], ['shadow', 'version seen in the shadow'],
            ['telemetry', 'version seen in telemetry']]),
          choice('Delivery', 'delivery', [['queue', 'at once'], ['retained', 'retained'], ['on_connect', 'when it shows itself']])),
          pairs(field('Complete at %', 'share', { ...SHARE, placeholder: '100' }),
            field('after', 'share_after', { placeholder: '0 s' }))))),
    h('div', { class: 'sticky' },
      h('button', { class: 'primary', type: 'submit', name: 'go' }, 'Create'),
      h('label', { class: 'check' }, h('input', { type: 'checkbox', name: 'start' }), 'and start it'), refusal));
  render(main, form);
  form.elements.name.focus();
  adjust();

  function adjust() {
    newFirmware.hidden = form.elements.firmware.value !== 'new';
    for (const name of ['version', 'file_url']) form.elements[name].required = !newFirmware.hidden;
    list.hidden = form.elements.target.value !== 'list';
    stagePlace.hidden = form.elements.strategy.value !== 'canary';
  }

  async function submit(event) {
    event.preventDefault();
    const request = requestOf(form, stages);
    if (!form.reportValidity()) return;
    form.elements.go.disabled = true;
    render(refusal);
    try {
      if (form.elements.firmware.value === 'new') {
        const made = await post(tenantPath(tenant, 'firmware'), given({
          version: text(form, 'version'), file_url: text(form, 'file_url'), device_type: text(form, 'device_type'),
          checksum_sha256: text(form, 'checksum_sha256'),
        }));
        request.firmware_version_id = made.id;
        await get(tenantPath(tenant, 'firmware', String(made.id)), { min_position: made.position });
      }
      const made = await post(tenantPath(tenant, 'campaigns'), request);
      const path = tenantPath(tenant, 'campaigns', String(made.id));
      const done = form.elements.start.checked ? await post(`${path}/start`) : made;
      await get(path, { min_position: done.position });
      location.assign(path);
    } catch (error) {
      render(refusal, error.message);
      form.elements.go.disabled = false;
    }
  }
}

function groupText(row) {
  const size = row.member_count === null ? 'by query' : count(row.member_count);
  return `group: ${row.name} (${size})`;
}

function requestOf(form, stages) {
  const value = (name) => form.elements[name].value, threshold = number(form, 'threshold'), share = number(form, 'share');
  const isList = value('target') === 'list', isCanary = value('strategy') === 'canary';
  const plan = given({
    tick_seconds: time(form, 'tick'), stages: isCanary ? stages.value() : null,
    order: value('order') === 'listed' ? null : value('order'),
    windows: value('window_from') && value('window_to') ? [{ days: [], from: value('window_from'), to: value('window_to') }] : null,
    time_zone: text(form, 'time_zone'),
    abort: given({
      method: value('method') === 'sequential' ? null : value('method'), action: value('action') === 'abort' ? null : value('action'),
      results_min: number(form, 'results_min'), consecutive_failures_max: number(form, 'consecutive'),
    }),
    timeouts: given({
      acknowledge_seconds: time(form, 'acknowledge'), download_seconds: time(form, 'download'), install_seconds: time(form, 'install'),
      campaign_seconds: time(form, 'campaign_seconds'),
    }),
    retry: given({ attempts_max: number(form, 'attempts'), backoff_seconds: time(form, 'backoff') }),
    completion: given({ share: share === null ? null : share / 100, seconds: time(form, 'share_after') }),
    verify: value('verify') || null, delivery: value('delivery') === 'queue' ? null : value('delivery'),
  });
  return given({
    name: text(form, 'name'), firmware_version_id: value('firmware') === 'new' ? null : Number(value('firmware')),
    target_group_id: isList ? null : Number(value('target')), devices: isList ? ids(value('devices')) : null,
    rollout_strategy: value('strategy'), rollout_rate: number(form, 'rate'),
    abort_threshold: threshold === null ? null : threshold / 100, plan,
  });
}
