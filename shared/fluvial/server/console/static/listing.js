// @ts-check
// The list beside the page: the streams that this token may read, as a tree, with a filter.
import { Refused, Unreachable, explain, requestJson } from "./api.js"
import { h, labelled } from "./dom.js"
import { count } from "./format.js"
import { StreamTree } from "./tree.js"

const PAGE = 1_000
const REFRESH_MS = 5_000
/** More pages than these are not asked for again every few seconds. */
const REFRESHED_PAGES = 2

export class Listing {
  #pages = 1
  #serial = 0
  /** @type {ReturnType<typeof setTimeout> | null} */
  #timer = null

  /** @param {{onChosen: (name: string) => void, onCreate: () => void, onError: (error: unknown) => void}} wanted */
  constructor({ onChosen, onCreate, onError }) {
    this.onError = onError
    this.tree = new StreamTree(onChosen)
    this.filter = h("input", { type: "search", autocomplete: "off", spellcheck: "false", placeholder: "Begins with …", "aria-keyshortcuts": "/" })
    this.total = h("p", { class: "quiet total", role: "status" })
    this.more = h("button", { type: "button", class: "small", hidden: true, onclick: () => { this.#pages++; this.load() } }, "Load more")
    this.element = h("div", { class: "listing" },
      h("div", { class: "listing-head" }, h("h2", null, "Streams"), h("button", { type: "button", class: "primary small", "aria-keyshortcuts": "n", onclick: onCreate }, "New")),
      labelled("Filter", this.filter), this.total, this.tree.element, this.more)
    this.filter.addEventListener("input", () => {
      if (this.#timer) clearTimeout(this.#timer)
      this.#pages = 1
      this.#timer = setTimeout(() => this.load(), 200)
    })
  }

  stop() {
    if (this.#timer) clearTimeout(this.#timer)
    this.#serial++
  }

  async load() {
    const serial = ++this.#serial
    if (this.#timer) clearTimeout(this.#timer)
    try {
      const streams = []
      let after = ""
      let page = 0
      for (; page < this.#pages; page++) {
        const prefix = encodeURI(this.filter.value.trim())
        const query = new URLSearchParams({ prefix, after, limit: String(PAGE), details: "true" })
        const found = await requestJson(`v1/streams?${query}`)
        streams.push(...found.streams)
        after = found.next
        if (!after) break
      }
      if (serial !== this.#serial) return
      this.more.hidden = !after
      this.total.textContent = streams.length ? `${count(streams.length)}${after ? "+" : ""} ${streams.length === 1 ? "stream" : "streams"}` : this.filter.value ? "No stream begins with this." : "No streams yet."
      this.tree.show(streams)
      this.onError(null)
      this.#again(page)
    } catch (error) {
      if (serial !== this.#serial) return
      this.total.textContent = error instanceof Refused && error.status === 403 ? "This token may not list streams." : explain(error)
      this.onError(error)
      if (error instanceof Unreachable || (error instanceof Refused && error.status >= 429)) this.#again(0)
    }
  }

  /** @param {number} pages */
  #again(pages) {
    this.#timer = setTimeout(() => (document.hidden || pages > REFRESHED_PAGES ? this.#again(pages) : this.load()), REFRESH_MS)
  }
}

