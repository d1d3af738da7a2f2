// Does something now and then again and again, while somebody looks.

/** `failed(error)` is told of what went wrong; it is tried again all the same. Returns what ends it. */
export function every(milliseconds, body, failed = () => {}) {
  let timer = 0, ended = false;
  async function run() {
    clearTimeout(timer);
    if (ended || document.hidden) return;
    try { await body(); } catch (error) { if (error.name !== 'AbortError') failed(error); }
    if (!ended) timer = setTimeout(run, milliseconds);
  }
  document.addEventListener('visibilitychange', run);
  run();
  return () => { ended = true; clearTimeout(timer); document.removeEventListener('visibilitychange', run); };
}
