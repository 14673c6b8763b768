// @ts-check
// The page's frame: who is using it, which page is shown, what is wrong with the connection.
import { NotOurServer, Refused, Unreachable, explain, probe } from "./api.js"
import { byId, h } from "./dom.js"
import { Listing } from "./listing.js"
import { decodeName } from "./names.js"
import { projectPage, projectsPage } from "./projects.js"
import { changes, choose, describeIdentity, identities, identity, isExpired, isOperator, signOut } from "./session.js"
import { startShortcuts } from "./shortcuts.js"
import { StreamView } from "./stream_view.js"
import { startTheme } from "./theme.js"
import { signInDialog, signInForm } from "./tokens.js"
import { createStreamDialog } from "./write.js"

const RETRY_MS = 3_000

/** @type {boolean | null} whether the server is open; null before that is known */
let isOpen = null
/** @type {Listing | null} */
let listing = null
/** @type {StreamView | null} */
let view = null
let shown = 0
/** @type {ReturnType<typeof setTimeout> | null} */
let retry = null

const go = (/** @type {string} */ path) => (location.hash === path ? route() : (location.hash = path))

async function start() {
  if (retry) clearTimeout(retry)
  try {
    const probed = await probe()
    isOpen = probed.isOpen
    notice(null)
  } catch (error) {
    notice(error)
    if (isOpen === null) byId("main").replaceChildren(h("p", { class: "quiet" }, error instanceof NotOurServer ? "Is a proxy in between?" : "This page tries again by itself."))
    retry = setTimeout(start, RETRY_MS)
    return
  }
  await route()
}

/** Say above the page what is wrong; null is nothing. @param {unknown} error */
function notice(error) {
  const bar = byId("notice")
  const wasShown = !bar.hidden
  const connection = byId("connection")
  bar.hidden = error === null
  connection.className = `connection ${error === null ? "is-good" : "is-bad"}`
  connection.textContent = error === null ? (isOpen ? "open server" : "") : "not connected"
  if (error === null) {
    bar.replaceChildren()
    return wasShown
  }
  if (error instanceof Refused && error.status === 401) {
    connection.textContent = "refused"
    const reason = isExpired(identity()) ? "Your token has expired." : explain(error)
    if (bar.textContent?.startsWith(reason)) return
    bar.replaceChildren(reason, " ", h("button", { type: "button", class: "small", onclick: () => signInDialog() }, "Use another token"))
  } else {
    const text = error instanceof Unreachable ? "The server is not available. Trying again …" : explain(error)
    if (bar.textContent !== text) bar.replaceChildren(text)
  }
}

/** A list that fails with no answer, or a server that has closed meanwhile. @param {unknown} error */
function onListError(error) {
  notice(error)
  if (isOpen && error instanceof Refused && error.status === 401) start()
}

async function route() {
  const serial = ++shown
  view?.stop()
  view = null
  const [, page = "", ...rest] = location.hash.slice(1).split("/")
  const name = rest.join("/")
  document.querySelectorAll("[data-page]").forEach((link) => {
    if ((link.getAttribute("data-page") === "projects") === (page === "projects")) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  })
  showIdentity()
  const needsToken = !isOpen && identity() === null
  showSide(page !== "projects" && !needsToken)
  document.body.classList.toggle("has-stream", page === "streams" && name !== "")
  if (needsToken) return show(serial, signInForm(), "Token")
  try {
    if (page === "projects") {
      const wanted = { isOpen: isOpen === true, go, onChanged }
      const content = name ? await projectPage(decodeName(name), wanted) : await projectsPage(wanted)
      if (content) show(serial, content, name || "Projects")
    } else if (page === "streams" && name) {
      view = new StreamView({ name, onChanged, go, isOpen: isOpen === true })
      show(serial, view.element, decodeName(name))
      listing?.tree.select(name)
      await view.start()
    } else {
      listing?.tree.select(null)
      show(serial, welcome(), "Streams")
    }
    if (!(page === "streams" || page === "")) notice(null)
  } catch (error) {
    if (error instanceof Refused && error.status === 401) return show(serial, signInForm(isExpired(identity()) ? "Your token has expired." : explain(error)), "Token")
    show(serial, h("p", { class: "failure", role: "alert" }, explain(error)), "Error")
  }
}

/** @param {number} serial @param {Node} content @param {string} title */
function show(serial, content, title) {
  if (serial !== shown) return
  byId("main").replaceChildren(content)
  document.title = `${title} – Fluvial`
}

function welcome() {
  return h("div", { class: "welcome" }, h("h1", null, "Streams"),
    h("p", null, "Choose a stream to see its messages come, or create one."),
    h("div", { class: "actions start" }, h("button", { type: "button", class: "primary", onclick: newStream }, "New stream")),
    isOpen ? h("p", { class: "note" }, "This server is open: everyone who reaches its port may read and write, without a token. ", h("a", { href: "#/projects" }, "A project closes it.")) : isOperator(identity()) && h("p", { class: "note" }, "An operator's token lists streams, and reads none. ", h("a", { href: "#/projects" }, "A project's own token"), " does."))
}

function newStream() {
  const project = isOpen ? null : identity()?.claims?.sub
  const within = identity()?.claims?.stream
  createStreamDialog({
    prefix: project && project !== "*" ? `${project}/${within ? decodeName(within) : ""}` : "",
    mayBePublic: !isOpen,
    onCreated: (name) => {
      onChanged()
      go(`#/streams/${name}`)
    },
  })
}

/** @param {boolean} isShown */
function showSide(isShown) {
  const side = byId("side")
  side.hidden = !isShown
  if (isShown && !listing) {
    listing = new Listing({ onChosen: (name) => go(`#/streams/${name}`), onCreate: newStream, onError: onListError })
    side.replaceChildren(listing.element)
    listing.load()
  } else if (!isShown) dropListing()
}

function dropListing() {
  listing?.stop()
  listing = null
  byId("side").replaceChildren()
}

function onChanged() {
  listing?.load()
  probe().then((probed) => {
    if (probed.isOpen === isOpen) return
    isOpen = probed.isOpen
    notice(null)
  }, () => {})
}

function showIdentity() {
  const all = identities()
  const current = identity()
  if (all.length === 0) {
    byId("identity").replaceChildren(isOpen === false ? "" : h("button", { type: "button", class: "quiet", onclick: () => signInDialog() }, "Use a token"))
    return
  }
  const select = h("select", { "aria-label": "Token in use" }, h("option", { value: -1 }, "no token"), ...all.map((one, index) => h("option", { value: index, selected: one.token === current?.token }, describeIdentity(one))), h("option", { value: "add" }, "add another …"))
  select.addEventListener("change", () => {
    if (select.value !== "add") return choose(Number(select.value))
    showIdentity()
    signInDialog()
  })
  byId("identity").replaceChildren(select, current ? h("button", { type: "button", class: "quiet", onclick: signOut }, "Forget") : "")
}

changes.addEventListener("change", () => {
  dropListing()
  start()
})
addEventListener("hashchange", route)
startTheme()
startShortcuts({
  "/": { text: "filter the streams", run: () => listing?.filter.focus() },
  t: { text: "go to the tree of streams", run: () => listing?.tree.focus() },
  n: { text: "new stream", run: () => isOpen === null || newStream() },
  w: { text: "write to the stream", run: () => /** @type {HTMLElement | null} */ (document.querySelector(".append textarea, .append input"))?.focus() },
  p: { text: "pause the messages, or resume", run: () => view?.togglePause() },
  g: { text: "go to the projects", run: () => go("#/projects") },
  s: { text: "go to the streams", run: () => go("#/") },
})
start()
