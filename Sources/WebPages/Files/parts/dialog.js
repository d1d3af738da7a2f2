// Dialogs: the browser's own, so that focus stays inside, Escape closes and the page behind is inert.
import { h } from '../core/dom.js';

/** For buttons: Enter in a field means the form's only submit button, never this. */
export const closeDialog = (event) => event.target.closest('dialog').close();

/** Shows a dialog with a title; returns it. It is removed when it closes, and focus goes back to where it was. */
export function openDialog(title, content, buttons = []) {
  const back = document.activeElement;
  const dialog = h('dialog', { 'aria-labelledby': 'dialog-title' },
    h('form', { method: 'dialog', class: 'dialog' },
      h('header', null,
        h('h2', { id: 'dialog-title' }, title),
        h('button', { type: 'button', class: 'ghost', 'aria-label': 'Close', onclick: closeDialog }, '✕')),
      h('div', { class: 'content' }, content),
      buttons.length > 0 && h('footer', null, buttons)));
  dialog.addEventListener('close', () => { dialog.remove(); back?.focus?.(); });
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
