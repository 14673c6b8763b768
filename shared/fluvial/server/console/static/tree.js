// @ts-check
// A tree of streams by the segments of their names, with the keys of WAI-ARIA's tree pattern. Letters
// are left to the page's shortcuts: the filter finds names.
import { h } from "./dom.js"
import { count, plural, relative, size } from "./format.js"
import { decodeSegment } from "./names.js"

/** So many children of one folder are shown; the filter finds the others. */
const CHILDREN = 400

/**
 * @typedef {{name: string, bytes?: number, lastAppendAt?: string | null, liveReads?: number, closed?: boolean}} Listed
 * @typedef {{path: string, label: string, stream: Listed | null, children: Map<string, Node_>, streamCount: number}} Node_
 */

/** @param {Listed[]} streams @returns {Node_} */
export function buildTree(streams) {
  const root = folder("", "")
  for (const stream of streams) {
    let node = root
    let path = ""
    for (const segment of stream.name.split("/")) {
      path = path ? `${path}/${segment}` : segment
      node.streamCount++
      let child = node.children.get(segment)
      if (!child) node.children.set(segment, (child = folder(path, decodeSegment(segment))))
      node = child
    }
    node.streamCount++
    node.stream = stream
  }
  return root
}

/** @param {string} path @param {string} label @returns {Node_} */
const folder = (path, label) => ({ path, label, stream: null, children: new Map(), streamCount: 0 })

export class StreamTree {
  #root = folder("", "")
  /** @type {Set<string>} */
  #open = new Set()
  /** @type {string | null} the path of the one item that Tab reaches */
  #active = null
  /** @type {string | null} */
  #selected = null

  /** @param {(name: string) => void} onChosen */
  constructor(onChosen) {
    this.onChosen = onChosen
    this.element = h("ul", { role: "tree", "aria-label": "Streams", class: "tree" })
    this.element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.#key(event))
    this.element.addEventListener("click", (/** @type {MouseEvent} */ event) => this.#click(event))
  }

  /** @param {Listed[]} streams */
  show(streams) {
    const isFirst = this.#root.children.size === 0
    this.#root = buildTree(streams)
    if (isFirst && streams.length <= 40) for (const node of this.#root.children.values()) this.#open.add(node.path)
    this.#draw()
  }

  /** @param {string | null} name */
  select(name) {
    this.#selected = name
    for (let at = name?.indexOf("/") ?? -1; name && at >= 0; at = name.indexOf("/", at + 1)) this.#open.add(name.slice(0, at))
    if (name) this.#active = name
    this.#draw()
  }

  focus() {
    this.#item(this.#active)?.focus()
  }

  /** @param {string | null} path @returns {HTMLElement | null} */
  #item(path) {
    return path === null ? null : this.element.querySelector(`[data-path="${CSS.escape(path)}"]`)
  }

  #draw() {
    const hadFocus = this.element.contains(document.activeElement)
    this.element.replaceChildren(...this.#items(this.#root, 1))
    const active = this.#item(this.#active) ?? /** @type {HTMLElement | null} */ (this.element.querySelector("[role=treeitem]"))
    if (!active) return
    this.#active = active.dataset.path ?? null
    active.tabIndex = 0
    if (hadFocus) active.focus()
  }

  /** @param {Node_} parent @param {number} level @returns {HTMLElement[]} */
  #items(parent, level) {
    const all = [...parent.children.values()]
    const items = all.slice(0, CHILDREN).map((node, index) => this.#itemOf(node, level, index + 1, all.length))
    if (all.length > CHILDREN) items.push(h("li", { role: "none", class: "tree-rest" }, `${count(all.length - CHILDREN)} more: use the filter`))
    return items
  }

  /** @param {Node_} node @param {number} level @param {number} place @param {number} of */
  #itemOf(node, level, place, of) {
    const isFolder = node.children.size > 0
    const isOpen = isFolder && this.#open.has(node.path)
    const row = h("div", { class: "tree-row" }, h("span", { class: `twist${isFolder ? "" : " none"}`, "aria-hidden": "true" }), h("span", { class: "tree-name" }, node.label, isFolder && !node.stream ? "/" : ""), ...this.#facts(node, isFolder))
    const item = h("li", {
      role: "treeitem", tabindex: "-1", "data-path": node.path, "aria-level": level, "aria-posinset": place, "aria-setsize": of,
      "aria-expanded": isFolder ? String(isOpen) : null, "aria-selected": String(node.stream !== null && node.path === this.#selected), "aria-label": this.#label(node, isFolder),
    }, row)
    if (isOpen) item.append(h("ul", { role: "group" }, ...this.#items(node, level + 1)))
    return item
  }

  /** @param {Node_} node @param {boolean} isFolder */
  #facts(node, isFolder) {
    const { stream } = node
    if (!stream) return [h("span", { class: "tree-fact" }, count(node.streamCount))]
    const readers = stream.liveReads ? h("span", { class: "tree-readers", title: plural(stream.liveReads, "reader") }, `${stream.liveReads}`) : null
    return [
      ...(readers ? [readers] : []),
      h("span", { class: "tree-fact tree-when", title: "last append" }, stream.lastAppendAt ? relative(stream.lastAppendAt) : ""),
      h("span", { class: "tree-fact tree-size" }, stream.bytes === undefined ? "" : size(stream.bytes)),
      ...(isFolder ? [h("span", { class: "tree-fact" }, `+${count(node.streamCount - 1)}`)] : []),
    ]
  }

  /** @param {Node_} node @param {boolean} isFolder */
  #label(node, isFolder) {
    if (!node.stream) return `${node.label}, ${plural(node.streamCount, "stream")}`
    const { bytes, liveReads, lastAppendAt, closed } = node.stream
    const parts = [node.label, bytes === undefined ? null : size(bytes), liveReads ? plural(liveReads, "reader") : null, lastAppendAt ? `last append ${relative(lastAppendAt)}` : null, closed ? "closed" : null]
    return [...parts, isFolder ? `and ${plural(node.streamCount - 1, "stream")} below` : null].filter(Boolean).join(", ")
  }

  /** @param {string} path @returns {Node_ | null} */
  #node(path) {
    let node = /** @type {Node_ | undefined} */ (this.#root)
    for (const segment of path.split("/")) node = node?.children.get(segment)
    return node ?? null
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const target = /** @type {HTMLElement} */ (event.target)
    const path = /** @type {HTMLElement | null} */ (target.closest("[role=treeitem]"))?.dataset.path
    if (path === undefined) return
    const node = this.#node(path)
    this.#active = path
    if (node?.stream && !target.classList.contains("twist")) this.onChosen(path)
    else this.#toggle(path, !this.#open.has(path))
    this.focus()
  }

  /** @param {string} path @param {boolean} isOpen */
  #toggle(path, isOpen) {
    if (isOpen) this.#open.add(path)
    else this.#open.delete(path)
    this.#draw()
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.#active === null) return
    const items = /** @type {HTMLElement[]} */ ([...this.element.querySelectorAll("[role=treeitem]")])
    const at = items.findIndex((item) => item.dataset.path === this.#active)
    const node = this.#node(this.#active)
    const isFolder = (node?.children.size ?? 0) > 0
    const isOpen = this.#open.has(this.#active)
    const parent = this.#active.includes("/") ? this.#active.slice(0, this.#active.lastIndexOf("/")) : null
    if (event.key === "ArrowDown") this.#move(items[at + 1])
    else if (event.key === "ArrowUp") this.#move(items[at - 1])
    else if (event.key === "Home") this.#move(items[0])
    else if (event.key === "End") this.#move(items.at(-1))
    else if (event.key === "ArrowRight" && isFolder) isOpen ? this.#move(items[at + 1]) : this.#toggle(this.#active, true)
    else if (event.key === "ArrowLeft" && isFolder && isOpen) this.#toggle(this.#active, false)
    else if (event.key === "ArrowLeft") this.#move(this.#item(parent))
    else if (event.key === "Enter" || event.key === " ") node?.stream ? this.onChosen(this.#active) : this.#toggle(this.#active, !isOpen)
    else return
    event.preventDefault()
    event.stopPropagation()
  }

  /** @param {HTMLElement | null | undefined} item */
  #move(item) {
    if (!item) return
    const before = this.#item(this.#active)
    if (before) before.tabIndex = -1
    this.#active = item.dataset.path ?? null
    item.tabIndex = 0
    item.focus()
  }
}
