// @ts-check
// The messages of one stream, live. Memory and page stay bounded however much comes: the last messages are kept, older
// ones go, and what is known of them is a few marks, the offsets from which they can be read again.
import { announce, h } from "./dom.js"
import { count, plural, size } from "./format.js"
import { follow, isJson, isText, readPage } from "./follow.js"
import { hexDump, jsonElement } from "./render.js"

/** So many messages are on the page, and so many characters of text or bytes. */
export const SHOWN = 300
const SHOWN_SIZE = 200_000
/** So many offsets are remembered for going back; beyond, every second one is forgotten. */
const MARKS = 1_000
/** The page is drawn anew at most so often. */
const DRAW_MS = 80
/** And how many have come is told to a screen reader at most so often. */
const ANNOUNCE_MS = 2_000

/** @typedef {{number: number, value: any, end: string}} Message */

const STATES = {
  connecting: "Connecting …",
  live: "Live",
  lost: "Connection lost, trying again …",
  closed: "Closed: no more messages will come",
  gone: "The stream does not exist any more",
  refused: "Refused",
}

export class MessageView {
  /** @type {Message[]} the newest, also while another place is shown */
  #kept = []
  /** @type {{offset: string, number: number}[]} */
  #marks = []
  #received = 0
  #isPaused = false
  /** @type {number} the number of the first message shown while paused */
  #pausedAt = 0
  #seen = 0
  /** @type {ReturnType<typeof setTimeout> | null} */
  #drawing = null
  /** @type {ReturnType<typeof setTimeout> | null} */
  #telling = null
  #told = 0
  #abort = new AbortController()

  /**
   * @param {{name: string, contentType: string, offset: string, onState?: (state: import("./follow.js").State) => void}} stream
   */
  constructor({ name, contentType, offset, onState }) {
    this.name = name
    this.contentType = contentType
    this.offset = offset
    this.onState = onState
    this.list = h("div", { class: `messages ${isText(contentType) ? (isJson(contentType) ? "is-json" : "is-text") : "is-bytes"}`, role: "log", "aria-live": "off", "aria-label": "Messages", tabindex: "0" })
    this.status = h("span", { class: "state", "data-state": "connecting" }, STATES.connecting)
    this.counter = h("span", { class: "counter" })
    this.pauseButton = h("button", { type: "button", class: "small", "aria-keyshortcuts": "p", onclick: () => this.togglePause() }, "Pause")
    this.olderButton = h("button", { type: "button", class: "small", onclick: () => this.showOlder() }, "Older")
    this.olderButton.disabled = true
    this.newer = h("button", { type: "button", class: "newer", hidden: true, onclick: () => this.togglePause() })
    this.element = h("section", { class: "card live", "aria-label": "Messages" },
      h("div", { class: "live-bar" }, this.status, this.counter, h("span", { class: "spacer" }), this.olderButton, this.pauseButton),
      this.list, this.newer)
    this.list.addEventListener("scroll", () => {
      if (!this.#isPaused && !this.#isAtEnd() && this.list.scrollTop < this.#scrolledTo) this.togglePause()
      this.#scrolledTo = this.list.scrollTop
    })
    follow(this, { onBatch: (batch) => this.#add(batch), onState: (state, reason) => this.#showState(state, reason) }, this.#abort.signal)
  }

  #scrolledTo = 0

  /** Stop following. */
  stop() {
    this.#abort.abort()
    if (this.#drawing) clearTimeout(this.#drawing)
    if (this.#telling) clearTimeout(this.#telling)
  }

  /** The offset behind the last message. */
  get end() {
    return this.#kept.at(-1)?.end ?? this.offset
  }

  /** @param {import("./follow.js").Batch} batch */
  #add({ messages, start, end }) {
    this.#marks.push({ offset: start, number: this.#received + 1 })
    if (this.#marks.length > MARKS) this.#marks = this.#marks.filter((_, index) => index % 2 === 0)
    const first = Math.max(0, messages.length - SHOWN)
    for (let index = first; index < messages.length; index++) this.#kept.push({ number: this.#received + index + 1, value: messages[index], end })
    this.#received += messages.length
    this.#kept = trim(this.#kept)
    this.#drawing ??= setTimeout(() => this.#draw(), DRAW_MS)
  }

  #draw() {
    this.#drawing = null
    this.counter.textContent = this.#received ? plural(this.#received, isText(this.contentType) && !isJson(this.contentType) ? "piece" : "message") + (this.offset === "-1" ? "" : " since you came") : ""
    this.#tell()
    if (this.#isPaused) {
      const newer = this.#received - this.#seen
      this.newer.hidden = false
      this.newer.textContent = newer ? `Paused, ${count(newer)} newer – resume` : "Paused – resume"
      return
    }
    this.newer.hidden = true
    this.#seen = this.#received
    this.#render(this.#kept)
    this.list.scrollTop = this.list.scrollHeight
    this.#scrolledTo = this.list.scrollTop
  }

  /** For a screen reader: how many came, now and then, and not each. */
  #tell() {
    this.#telling ??= setTimeout(() => {
      this.#telling = null
      if (this.#received > this.#told) announce(plural(this.#received - this.#told, "new message"))
      this.#told = this.#received
    }, ANNOUNCE_MS)
  }

  /** Show these messages, keeping the elements of those that are shown already. @param {Message[]} messages */
  #render(messages) {
    const first = messages[0]?.number ?? 0
    const rows = /** @type {HTMLElement[]} */ ([...this.list.querySelectorAll("[data-number]")])
    this.list.querySelector(".empty")?.remove()
    for (const row of rows) if (Number(row.dataset.number) < first || Number(row.dataset.number) > (messages.at(-1)?.number ?? 0)) row.remove()
    const shown = new Set(rows.filter((row) => row.isConnected).map((row) => Number(row.dataset.number)))
    const isDisjoint = shown.size === 0
    const fresh = messages.filter((one) => isDisjoint || !shown.has(one.number)).map((one) => this.#row(one))
    this.list.append(...fresh)
    if (messages.length === 0) this.list.append(h("p", { class: "empty" }, "No messages yet. What is appended appears here at once."))
    this.olderButton.disabled = first <= 1 || this.#marks.length === 0
  }

  /** @param {Message} message */
  #row({ number, value, end }) {
    if (value instanceof Uint8Array) {
      const cut = value.subarray(0, 16_384)
      return h("div", { class: "message bytes", "data-number": number }, h("div", { class: "message-head" }, `${size(value.length)}, up to ${end}${value.length > cut.length ? `; the first ${size(cut.length)} of them` : ""}`), h("pre", null, hexDump(cut)))
    }
    if (!isJson(this.contentType)) return h("span", { class: "message text", "data-number": number, title: `up to ${end}` }, String(value))
    return h("div", { class: "message", "data-number": number }, h("span", { class: "number", title: `up to ${end}` }, count(number)), h("div", { class: "value" }, jsonElement(value)))
  }

  #isAtEnd() {
    return this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40
  }

  togglePause() {
    this.#isPaused = !this.#isPaused
    this.pauseButton.textContent = this.#isPaused ? "Resume" : "Pause"
    this.#seen = this.#received
    if (!this.#isPaused) this.list.replaceChildren()
    this.#draw()
  }

  /** Read again what came before the first message shown, from the nearest mark. */
  async showOlder() {
    const first = Number(/** @type {HTMLElement | null} */ (this.list.querySelector("[data-number]"))?.dataset.number ?? 1)
    const mark = this.#marks.findLast((one) => one.number < first)
    if (!mark) return
    if (!this.#isPaused) this.togglePause()
    this.olderButton.disabled = true
    try {
      const { messages, end } = await readPage(this.name, mark.offset)
      const before = messages.map((value, index) => ({ number: mark.number + index, value, end })).filter((one) => one.number < first || !isJson(this.contentType))
      this.list.replaceChildren()
      this.#render(trim(before))
      this.list.scrollTop = 0
      this.#scrolledTo = 0
    } catch (error) {
      this.#showState("lost", String(error))
    }
  }

  /** @param {import("./follow.js").State} state @param {string} [reason] */
  #showState(state, reason) {
    this.status.textContent = reason && (state === "refused" || state === "gone") ? `${STATES[state]}: ${reason}` : STATES[state]
    this.status.dataset.state = state
    if (state !== "connecting" && !this.list.childElementCount) this.#render(this.#kept)
    this.onState?.(state)
  }
}

/** The last messages, as many as the page holds. @param {Message[]} messages */
function trim(messages) {
  let total = 0
  let from = messages.length
  while (from > 0 && messages.length - from < SHOWN) {
    const { value } = messages[from - 1]
    total += value instanceof Uint8Array ? 4 * value.length : typeof value === "string" ? value.length : 0
    if (total > SHOWN_SIZE && from < messages.length) break
    from--
  }
  const kept = messages.slice(from)
  const last = kept.at(-1)
  if (last && typeof last.value === "string" && last.value.length > SHOWN_SIZE) kept[kept.length - 1] = { ...last, value: `…${last.value.slice(-SHOWN_SIZE)}` }
  return kept
}
