// The system's state as it changes: by the server's event stream, and by asking where a stream cannot be had.
// A page nobody looks at holds no connection: browsers give a server six of them, over all tabs.
import { get, halfOfSession } from './api.js';
import { goToLogin } from './session.js';

const ASK_EVERY = 2000;
const RETRY_AFTER = 2000;

/**
 * Reads a server-sent event stream (WHATWG HTML, 9.2) until it ends. An EventSource cannot send the session's second
 * half. `heard(name, data)`. Throws what `fetch` throws; `refused` is set on a stream that is none.
 */
async function listen(path, signal, heard) {
  const response = await fetch('/api/v1' + path, {
    headers: { Accept: 'text/event-stream', ...halfOfSession() }, cache: 'no-store', signal,
  });
  if (!response.ok || !response.body) throw Object.assign(new Error(`HTTP ${response.status}`), { refused: true });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '', name = 'message', data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith('event: ')) name = line.slice(7);
      else if (line.startsWith('data: ')) data.push(line.slice(6));
      else if (line === '') {
        if (data.length > 0) heard(name, data.join('\n'));
        [name, data] = ['message', []];
      }
    }
  }
}

/**
 * Follows `path`'s events of the kind `name` and hands their data over; when there is no stream, asks `question` every
 * two seconds instead. `listener(data)`; `down(error)` when nothing answers. Returns what ends it.
 */
export function follow(path, name, question, listener, down = () => {}) {
  let source = null, timer = 0, retry = 0, ended = false, asks = false;

  async function ask() {
    clearTimeout(timer);
    if (ended || document.hidden) return;
    try { listener(await question()); } catch (error) { if (error.name !== 'AbortError') down(error); }
    if (asks && !ended) timer = setTimeout(ask, ASK_EVERY);
  }

  function open() {
    if (ended || document.hidden || source) return;
    if (asks) { ask(); return; }
    const control = source = new AbortController();
    listen(path, control.signal, (heard, data) => { if (heard === name) listener(JSON.parse(data)); }).then(
      () => again(control, false), (error) => again(control, error.refused === true));
  }

  /** A refused stream is given up; a broken or ended one is opened again. */
  function again(control, refused) {
    if (ended || source !== control) return;
    close();
    asks = refused;
    if (!asks) retry = setTimeout(open, RETRY_AFTER);
    ask();
  }

  function close() {
    source?.abort();
    source = null;
    clearTimeout(timer);
    clearTimeout(retry);
  }

  const seen = () => { if (document.hidden) close(); else open(); };
  document.addEventListener('visibilitychange', seen);
  addEventListener('pagehide', close);
  ask();
  open();
  return () => { ended = true; close(); document.removeEventListener('visibilitychange', seen); };
}

/** The last ten minutes of what charts show: {time, rate, lag, behind}. */
export const history = [];
const HISTORY = 600;
const listeners = new Set();
let before = null, latest = null, failure = null;

/** Follows the system's status. `listener(status, error)`: one of them is null. */
export function onStatus(listener) {
  listeners.add(listener);
  if (listeners.size === 1) follow('/stream', 'status', () => get('/status'), remember, lost);
  else if (latest || failure) listener(latest, failure);
}

function lost(error) {
  if (error.status === 401) goToLogin();
  failure = error;
  for (const listener of listeners) listener(latest, error);
}

/** What the stream tells, or the answer to a question. */
function remember(news) {
  const status = news.status ?? news, time = performance.now();
  const lag = status.projections.reduce((most, one) => Math.max(most, one.lag_seconds), 0);
  const behind = status.projections.reduce((most, one) => Math.max(most, one.lag_events), 0);
  if (before && time - before.time > 400) {
    const seconds = (time - before.time) / 1000;
    const rate = Math.max(0, status.log.durable - before.durable) / seconds;
    history.push({ time: Date.now(), rate, lag, behind });
    if (history.length > HISTORY) history.shift();
  }
  if (!before || time - before.time > 400) before = { time, durable: status.log.durable };
  [latest, failure] = [status, null];
  for (const listener of listeners) listener(status, null);
}
