// @ts-check
// Shows messages: JSON as a tree that unfolds on demand, text as it is, other bytes in hex.
import { h } from "./dom.js"

/** So many members of an object or array are shown at once. */
const MEMBERS = 100
/** And so many characters of a string. */
const CHARACTERS = 2_000
const PREVIEW = 120

/** A number that JavaScript cannot hold exactly, as it was written. */
class Written {
  /** @param {string} source */
  constructor(source) {
    this.source = source
  }
}

/** Parse JSON, keeping numbers as they were written. @param {string} text @returns {any} */
export function parseJson(text) {
  try {
    return JSON.parse(text, /** @type {any} */ ((/** @type {string} */ _key, /** @type {any} */ value, /** @type {any} */ context) =>
      typeof value === "number" && context?.source !== undefined && context.source !== String(value) ? new Written(context.source) : value))
  } catch (error) {
    if (error instanceof RangeError) return JSON.parse(text) // too deep for a function on each level
    throw error
  }
}

/** @param {any} value */
const isTree = (value) => typeof value === "object" && value !== null && !(value instanceof Written)

/** JSON on one line, cut to its first characters. @param {any} value @param {number} room @returns {string} */
export function preview(value, room = PREVIEW) {
  if (value instanceof Written) return value.source
  if (typeof value === "string") return JSON.stringify(value.length > room ? `${value.slice(0, room)}…` : value)
  if (!isTree(value)) return String(value)
  const isArray = Array.isArray(value)
  let line = ""
  let number = 0
  for (const key in value) {
    if (line.length > room || ++number > 20) {
      line += ", …"
      break
    }
    const left = Math.max(8, room - line.length)
    const member = isTree(value[key]) && left < 24 ? (Array.isArray(value[key]) ? "[…]" : "{…}") : preview(value[key], left / 2)
    line += (line ? ", " : "") + (isArray ? member : `${key}: ${member}`)
  }
  return isArray ? `[${line}]` : `{${line}}`
}

/** A value of JSON as an element. @param {any} value @returns {HTMLElement} */
export function jsonElement(value) {
  if (!isTree(value)) return leaf(value)
  const keys = Object.keys(value)
  if (keys.length === 0) return h("span", { class: "json-empty" }, Array.isArray(value) ? "[]" : "{}")
  const details = h("details", { class: "json" }, h("summary", null, h("span", { class: "json-preview" }, preview(value))))
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(members(value, keys, 0))
  })
  return details
}

/** @param {any} value @param {string[]} keys @param {number} from @returns {HTMLElement} */
function members(value, keys, from) {
  const list = h("ul", { class: "json-members" })
  add(from)
  return list

  function add(/** @type {number} */ at) {
    for (const key of keys.slice(at, at + MEMBERS)) list.append(h("li", null, h("span", { class: "json-key" }, key), ": ", jsonElement(value[key])))
    const rest = keys.length - at - MEMBERS
    if (rest <= 0) return
    const more = h("button", { type: "button", class: "small" }, `Show more (${rest} left)`)
    const row = h("li", null, more)
    more.addEventListener("click", () => {
      row.remove()
      add(at + MEMBERS)
    })
    list.append(row)
  }
}

/** @param {any} value @returns {HTMLElement} */
function leaf(value) {
  if (value instanceof Written) return h("span", { class: "json-number" }, value.source)
  if (typeof value !== "string") return h("span", { class: `json-${value === null ? "null" : typeof value}` }, String(value))
  const whole = JSON.stringify(value)
  if (whole.length <= CHARACTERS) return h("span", { class: "json-string" }, whole)
  const shown = h("span", { class: "json-string" }, `${whole.slice(0, CHARACTERS)}…`)
  const more = h("button", { type: "button", class: "small" }, `Show all ${whole.length} characters`)
  more.addEventListener("click", () => {
    shown.textContent = whole
    more.remove()
  })
  return h("span", null, shown, " ", more)
}

/** Bytes as people read them in a dump: place, 16 bytes, and their characters. @param {Uint8Array} bytes @param {number} [first] the first place */
export function hexDump(bytes, first = 0) {
  const lines = []
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16)
    const hex = Array.from(row, (one) => one.toString(16).padStart(2, "0"))
    const left = hex.slice(0, 8).join(" ").padEnd(23)
    const right = hex.slice(8).join(" ").padEnd(23)
    const characters = Array.from(row, (one) => (one >= 0x20 && one < 0x7f ? String.fromCharCode(one) : ".")).join("")
    lines.push(`${(first + at).toString(16).padStart(8, "0")}  ${left}  ${right}  ${characters}`)
  }
  return lines.join("\n")
}
