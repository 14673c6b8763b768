// @ts-check
// Elements without markup: every text comes in as a text node, so that no content of a stream can become an element.

/**
 * Make an element. Properties that begin with `on` are listeners; others are attributes; null and false leave one out.
 * @param {string} name
 * @param {Record<string, unknown> | null} [properties]
 * @param {...(Node | string | number | null | undefined | false)} children
 * @returns {any} the element, whose type depends on its name
 */
export function h(name, properties, ...children) {
  const element = document.createElement(name)
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue
    if (key.startsWith("on") && typeof value === "function") element.addEventListener(key.slice(2), /** @type {any} */ (value))
    else if (key === "value") /** @type {any} */ (element).value = value
    else element.setAttribute(key, value === true ? "" : String(value))
  }
  element.append(.../** @type {(Node | string)[]} */ (children.filter((one) => one !== null && one !== undefined && one !== false).map((one) => (typeof one === "number" ? String(one) : one))))
  return element
}

/** @param {string} id */
export const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id))

let serial = 0

/** A label with its control, which gets an id for it.
 * @param {string} text @param {HTMLElement} control @param {string} [hint] */
export function labelled(text, control, hint) {
  control.id ||= `control-${++serial}`
  if (hint) control.setAttribute("aria-describedby", `${control.id}-hint`)
  return h("div", { class: "field" }, h("label", { for: control.id }, text), control, hint && h("p", { class: "hint", id: `${control.id}-hint` }, hint))
}

/** Tell users of a screen reader; a text that replaces another within a second is told alone.
 * @param {string} text */
export function announce(text) {
  byId("announcer").textContent = text
}

/** A button that copies a text, and says so. @param {() => string} text @param {string} [label] @param {string} [of] */
export function copyButton(text, label = "Copy", of) {
  const button = h("button", { type: "button", class: "small", "aria-label": of ? `${label} ${of}` : null }, label)
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text())
      button.textContent = "Copied"
      announce("Copied")
    } catch {
      button.textContent = "Not allowed"
    }
    setTimeout(() => (button.textContent = label), 1_500)
  })
  return button
}
