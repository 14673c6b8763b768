// @ts-check
// Dialogs of the browser's own kind: they keep the focus inside, and Escape closes them.
import { h } from "./dom.js"
import { explain } from "./api.js"

/**
 * Open a dialog with a form; `submit` may fail with an error, which is shown, and the dialog stays.
 * @param {{title: string, content: (Node | string)[], action?: string, isDangerous?: boolean, submit?: () => Promise<unknown> | unknown}} wanted
 */
export function openDialog({ title, content, action, isDangerous, submit }) {
  const failure = h("p", { class: "failure", role: "alert", hidden: true })
  const go = action && h("button", { type: "submit", class: isDangerous ? "danger" : "primary" }, action)
  const cancel = h("button", { type: "button" }, action ? "Cancel" : "Close")
  const form = h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), ...content, failure, h("div", { class: "actions" }, cancel, go))
  const dialog = /** @type {HTMLDialogElement} */ (h("dialog", { "aria-labelledby": "dialog-title" }, form))
  cancel.addEventListener("click", () => dialog.close())
  dialog.addEventListener("close", () => dialog.remove()) // the browser gives the focus back to what had it
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault()
    if (!submit) return dialog.close()
    go.disabled = true
    failure.hidden = true
    try {
      await submit()
      dialog.close()
    } catch (error) {
      failure.textContent = explain(error)
      failure.hidden = false
    } finally {
      go.disabled = false
    }
  })
  document.body.append(dialog)
  dialog.showModal()
  return dialog
}
