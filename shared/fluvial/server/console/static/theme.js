// @ts-check
// Dark or light: as the system says, unless the button says otherwise.
import { byId } from "./dom.js"

const KEY = "fluvial.theme"
const NEXT = /** @type {Record<string, string>} */ ({ auto: "dark", dark: "light", light: "auto" })

export function startTheme() {
  const button = byId("theme")
  const show = (/** @type {string} */ theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = theme
    button.textContent = { auto: "Auto", dark: "Dark", light: "Light" }[theme] ?? "Auto"
    button.setAttribute("aria-label", `Colours: ${theme}`)
  }
  let theme = localStorage.getItem(KEY) ?? "auto"
  show(theme)
  button.addEventListener("click", () => {
    theme = NEXT[theme] ?? "auto"
    localStorage.setItem(KEY, theme)
    show(theme)
  })
}
