// @ts-check
// Keys for what is done often. A key that is typed into a field is text.
import { openDialog } from "./dialogs.js"
import { byId, h } from "./dom.js"

/** @type {[string, string][]} */
const OTHERS = [
  ["↑ ↓", "the stream above, below"],
  ["→ ←", "open, close a folder"],
  ["Enter", "show the stream"],
  ["Ctrl Enter", "append what is written"],
  ["Esc", "close a dialog"],
]

/** @param {Record<string, {text: string, run: () => void}>} keys */
export function startShortcuts(keys) {
  const help = () => {
    if (document.querySelector("dialog[open]")) return
    const rows = [...Object.entries(keys).map(([key, { text }]) => [key, text]), ...OTHERS, ["?", "this list"]]
    openDialog({ title: "Keyboard shortcuts", content: [h("dl", { class: "keys" }, ...rows.map(([key, text]) => h("div", null, h("dt", null, h("kbd", null, key)), h("dd", null, text))))] })
  }
  byId("help").addEventListener("click", help)
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target)
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest("input, textarea, select, dialog") || event.defaultPrevented) return
    if (event.key === "?") help()
    else if (keys[event.key]) keys[event.key].run()
    else return
    event.preventDefault()
  })
}
