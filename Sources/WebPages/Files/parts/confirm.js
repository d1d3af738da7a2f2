// Asks before something is done, says what it will do, and stays open when it is refused.
import { h, render } from '../core/dom.js';
import { closeDialog, openDialog } from './dialog.js';

/**
 * @param options title, text (children), verb (the button), danger, reason (ask for one), word (to be typed first)
 * @param act does it with the reason, and throws a Problem when it is refused. Afterwards the dialog closes.
 */
export function confirm({ title, text, verb, danger = false, reason = false, word = null }, act) {
  const refusal = h('p', { class: 'refusal', role: 'alert' });
  const go = h('button', { class: danger ? 'danger' : 'primary', type: 'submit', disabled: word !== null }, verb);
  const why = reason && h('input', { name: 'reason', maxlength: 1000, placeholder: 'for the record', autocomplete: 'off' });
  const typed = word && h('input', {
    name: 'word', autocomplete: 'off', spellcheck: 'false', oninput: () => { go.disabled = typed.value !== word; },
  });
  const dialog = openDialog(title, [
    h('div', { class: 'stack' }, text),
    why && h('label', { class: 'field' }, 'Reason', why),
    typed && h('label', { class: 'field' }, h('span', null, 'Type ', h('b', null, word), ' to go on'), typed),
    refusal,
  ], [h('button', { type: 'button', onclick: closeDialog }, 'Cancel'), go]);
  (typed || why || go).focus();
  dialog.querySelector('form').addEventListener('submit', async (event) => {
    event.preventDefault();
    go.disabled = true;
    render(refusal);
    try {
      await act(why ? why.value.trim() : '');
      dialog.close();
    } catch (error) {
      render(refusal, error.message);
      go.disabled = false;
    }
  });
}
