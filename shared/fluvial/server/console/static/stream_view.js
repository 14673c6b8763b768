// @ts-check
// One stream: its messages live, what is known of it, and what can be done with it.
import { Refused, explain, request, requestJson, streamUrl } from "./api.js"
import { copyButton, h, labelled } from "./dom.js"
import { absolute, count, plural, relative, size } from "./format.js"
import { isJson, isText } from "./follow.js"
import { MessageView } from "./messages.js"
import { decodeName } from "./names.js"
import { ACTIONS, LANGUAGES, snippet } from "./snippets.js"
import { appendForm, closeDialog, deleteDialog, forkDialog } from "./write.js"

/** A stream up to this size is read from its beginning; of a longer one, what comes from now on. */
const FROM_BEGINNING_BYTES = 4_000_000
const REFRESH_MS = 4_000

/** @typedef {{name: string, onChanged: () => void, go: (path: string) => void, isOpen: boolean}} Wanted */

export class StreamView {
  /** @type {MessageView | null} */
  #messages = null
  /** @type {ReturnType<typeof setInterval> | null} */
  #timer = null
  #hasBeenLive = false
  /** @type {any} */
  info = null

  /** @param {Wanted} wanted */
  constructor(wanted) {
    this.wanted = wanted
    this.head = h("div", { class: "stream-head" })
    this.facts = h("dl", { class: "facts" })
    this.people = h("div")
    this.element = h("article", { class: "stream" }, h("h1", null, decodeName(wanted.name)), h("p", { class: "quiet" }, "Loading …"))
  }

  async start() {
    const { name } = this.wanted
    try {
      this.info = await requestJson(`v1/info/${name}`)
    } catch (error) {
      const isGone = error instanceof Refused && (error.status === 404 || error.status === 410)
      this.element.replaceChildren(h("h1", null, decodeName(name)), h("p", { class: "failure", role: "alert" }, isGone ? "There is no stream of this name." : explain(error)))
      return
    }
    const offset = this.info.bytes > FROM_BEGINNING_BYTES ? "now" : "-1"
    this.#build(offset)
    this.#timer = setInterval(() => document.hidden || this.#refresh(), REFRESH_MS)
  }

  stop() {
    this.#messages?.stop()
    if (this.#timer) clearInterval(this.#timer)
  }

  togglePause() {
    this.#messages?.togglePause()
  }

  /** @param {string} offset */
  #build(offset) {
    const { contentType } = this.info
    this.#follow(offset)
    const write = h("section", { class: "card", "aria-labelledby": "write-title" }, h("h2", { id: "write-title" }, "Write"))
    if (this.info.closed) write.append(h("p", { class: "quiet" }, "The stream is closed."))
    else write.append(appendForm({ name: this.wanted.name, contentType }, () => {
      this.#refresh()
      this.wanted.onChanged()
    }))
    const about = h("section", { class: "card", "aria-labelledby": "about-title" }, h("h2", { id: "about-title" }, "About"), this.facts, this.people)
    this.element.replaceChildren(this.head, h("div", { class: "columns" },
      h("div", { class: "column wide" }, /** @type {MessageView} */ (this.#messages).element),
      h("div", { class: "column" }, write, about, this.#copyCard())))
    this.#show()
  }

  /** @param {string} offset */
  #follow(offset) {
    const former = this.#messages
    former?.stop()
    this.#messages = new MessageView({
      name: this.wanted.name, contentType: this.info.contentType, offset,
      onState: (state) => {
        if (state === "live" && !this.#hasBeenLive) this.wanted.onChanged() // so that the list counts this reader
        this.#hasBeenLive ||= state === "live"
        if (state === "closed" && !this.info.closed) this.#refresh()
        if (state === "gone" || state === "refused") this.wanted.onChanged()
      },
    })
    if (offset === "now") {
      const note = h("p", { class: "note" }, `The stream has ${size(this.info.bytes)}. Below are new messages alone. `, h("button", { type: "button", class: "small", onclick: () => this.#follow("-1") }, "Read it from its beginning"))
      this.#messages.element.prepend(note)
    }
    former?.element.replaceWith(this.#messages.element)
  }

  async #refresh() {
    try {
      const before = this.info
      this.info = await requestJson(`v1/info/${this.wanted.name}`)
      if (this.info.closed && !before.closed) {
        this.wanted.onChanged()
        this.#build("-1")
      } else this.#show()
    } catch {
      // the state of the live messages tells it
    }
  }

  #show() {
    const { info, wanted } = this
    const badges = [info.contentType, info.closed && "closed", info.public && "public", info.estuary && `estuary, ${info.estuary}`, info.forkedFrom && "fork"].filter(Boolean)
    const actions = [
      h("button", { type: "button", onclick: () => forkDialog({ name: wanted.name, tail: info.offset, contentType: info.contentType, onForked: (name) => this.#left(name) }) }, "Fork"),
      !info.closed && h("button", { type: "button", onclick: () => closeDialog({ name: wanted.name, onClosed: () => this.#refresh() }) }, "Close"),
      h("button", { type: "button", class: "danger", onclick: () => this.#delete() }, "Delete"),
    ]
    if (!this.head.childElementCount) this.head.replaceChildren(h("div", null, h("h1", null, decodeName(wanted.name)), h("p", { class: "badges" }, ...badges.map((one) => h("span", { class: "badge" }, one)))), h("div", { class: "actions" }, ...actions))
    this.#showFacts()
    this.#showPeople()
  }

  #showFacts() {
    const { info } = this
    const offset = h("span", { class: "offset" }, h("code", null, info.offset), " ", copyButton(() => info.offset, "Copy", "the offset"))
    const moment = (/** @type {string | null} */ one) => h("span", { title: absolute(one) }, one ? relative(one) : "–")
    /** @type {[string, Node | string][]} */
    const rows = [
      ["Size", `${size(info.bytes)}`],
      ["Tail offset", offset],
      ["Readers", count(info.liveReads)],
      ["Last append", moment(info.lastAppendAt)],
      ["Created", moment(info.createdAt)],
      ["Expires", info.expiresAt ? moment(info.expiresAt) : "never"],
    ]
    if (info.ttlSeconds) rows.push(["Time to live", plural(info.ttlSeconds, "second")])
    if (info.forkedFrom) rows.push(["Fork of", h("span", null, this.#link(info.forkedFrom.stream), " at ", h("code", null, info.forkedFrom.offset))])
    rows.push(["Forks", count(info.forks)])
    // Rows stay while their texts are the same, so that focus and selection do.
    const text = JSON.stringify([info.bytes, info.offset, info.liveReads, relative(info.lastAppendAt), relative(info.createdAt), relative(info.expiresAt), info.forks])
    if (text === this.facts.dataset.text || this.facts.contains(document.activeElement)) return
    this.facts.dataset.text = text
    this.facts.replaceChildren(...rows.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))))
  }

  #showPeople() {
    const { producers, producerCount, followers } = this.info
    if (!producers) return
    const parts = []
    if (producers.length) {
      const rows = producers.map((/** @type {any} */ one) => h("tr", null, h("td", null, one.id), h("td", { class: "num" }, one.epoch), h("td", { class: "num" }, one.seq)))
      parts.push(h("table", null, h("caption", null, `Producers (${count(producerCount ?? producers.length)})`), h("thead", null, h("tr", null, h("th", { scope: "col" }, "Id"), h("th", { scope: "col", class: "num" }, "Epoch"), h("th", { scope: "col", class: "num" }, "Seq"))), h("tbody", null, ...rows)))
    }
    if (followers?.length) {
      const rows = followers.map((/** @type {any} */ one) => h("tr", null, h("td", null, this.#link(one.estuary)), h("td", null, one.mode)))
      parts.push(h("table", null, h("caption", null, `Followers (${count(followers.length)})`), h("thead", null, h("tr", null, h("th", { scope: "col" }, "Estuary"), h("th", { scope: "col" }, "Mode"))), h("tbody", null, ...rows)))
    }
    if (!parts.length) parts.push(h("p", { class: "quiet" }, "No producers and no followers."))
    this.people.replaceChildren(...parts)
  }

  /** @param {string} name */
  #link(name) {
    return h("a", { href: `#/streams/${name}` }, decodeName(name))
  }

  #copyCard() {
    const language = h("select", null, ...LANGUAGES.map((one) => h("option", null, one)))
    const action = h("select", null, ...ACTIONS.map((one) => h("option", null, one)))
    const code = h("code")
    const draw = () => {
      const url = streamUrl(this.wanted.name).href
      const body = isJson(this.info.contentType) ? '{"hello": "world"}' : isText(this.info.contentType) ? "hello" : "\u0001\u0002"
      code.textContent = snippet({ url, contentType: this.info.contentType, needsToken: !this.wanted.isOpen, offset: "-1", body }, action.value, language.value)
    }
    language.addEventListener("change", draw)
    action.addEventListener("change", draw)
    draw()
    return h("section", { class: "card", "aria-labelledby": "copy-title" }, h("h2", { id: "copy-title" }, "Copy as"),
      h("div", { class: "pair" }, labelled("Language", language), labelled("To", action)),
      h("pre", { class: "snippet", tabindex: "0", "aria-label": "Code" }, code), h("div", { class: "actions" }, copyButton(() => code.textContent ?? "", "Copy", "the code")))
  }

  #delete() {
    const { name } = this.wanted
    deleteDialog({
      what: "stream", name: decodeName(name), isIn: `It has ${size(this.info.bytes)}, and ${plural(this.info.forks, "fork")}. Its bytes cannot be had back.`,
      remove: async () => {
        await request(streamUrl(name), { method: "DELETE" })
        this.#left("")
      },
    })
  }

  /** @param {string} name the stream to show instead, or none */
  #left(name) {
    this.wanted.onChanged()
    this.wanted.go(name ? `#/streams/${name}` : "#/")
  }
}
