// @ts-check
// Makes a project's tokens in the browser, from a secret that is pasted or was just made. Nothing of it is sent.
import { openDialog } from "./dialogs.js"
import { copyButton, h, labelled } from "./dom.js"
import { canSign, mint } from "./jwt.js"
import { encodeName } from "./names.js"
import { signIn } from "./session.js"

const SCOPES = [
  ["read", "read streams"],
  ["write", "read, create, append, delete"],
  ["manage", "all of that, and the project's rules"],
]
const LIFETIMES = /** @type {const} */ ([
  [3_600, "an hour"],
  [86_400, "a day"],
  [7 * 86_400, "a week"],
  [30 * 86_400, "30 days"],
  [366 * 86_400, "a year"],
])

/** A token's `stream` claim: one stream, or with a slash at the end all below. @param {string} text */
export function streamClaim(text) {
  const trimmed = text.trim()
  return trimmed === "" ? undefined : encodeName(trimmed.replace(/\/$/, "")) + (trimmed.endsWith("/") ? "/" : "")
}

/** @param {{project: string, secret: string}} wanted `secret` may be empty */
export function mintForm({ project, secret }) {
  if (!canSign()) return h("p", { class: "note" }, "Browsers sign tokens only on https: and on localhost. Use the command: ", h("code", null, `fluvial token mint ${project}`))
  const secretInput = h("input", { type: "password", required: true, value: secret, autocomplete: "off", spellcheck: "false" })
  const scope = h("select", null, ...SCOPES.map(([value, text]) => h("option", { value }, `${value} – ${text}`)))
  const stream = h("input", { type: "text", placeholder: "all streams", autocomplete: "off", spellcheck: "false" })
  const lifetime = h("select", null, ...LIFETIMES.map(([seconds, text]) => h("option", { value: seconds }, text)))
  const failure = h("p", { class: "failure", role: "alert", hidden: true })
  const result = h("div", { "aria-live": "polite" })
  const form = h("form", { class: "mint" },
    labelled("Secret of the project", secretInput, "It stays in this page, and is not sent."),
    h("div", { class: "pair" }, labelled("Scope", scope), labelled("Valid for", lifetime)),
    labelled("Stream", stream, "Within the project: one stream, as in orders, or all below, as in chat/"),
    failure, h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Make a token")), result)
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault()
    failure.hidden = true
    try {
      const now = Math.floor(Date.now() / 1_000)
      const claim = streamClaim(stream.value)
      const token = await mint(secretInput.value.trim(), { sub: project, scope: scope.value, exp: now + Number(lifetime.value), iat: now, ...(claim ? { stream: claim } : {}) })
      result.replaceChildren(h("pre", { class: "token", tabindex: "0", "aria-label": "Token" }, h("code", null, token)),
        h("div", { class: "actions" }, copyButton(() => token, "Copy", "the token"), h("button", { type: "button", onclick: () => signIn(token) }, "Use it here")))
    } catch (error) {
      failure.textContent = error instanceof Error ? error.message : String(error)
      failure.hidden = false
    }
  })
  return form
}

/** Ask for a token. @param {string} [reason] */
export function signInForm(reason) {
  const token = h("input", { type: "password", required: true, autocomplete: "off", spellcheck: "false" })
  const form = h("form", { class: "sign-in card" }, h("h1", null, "A token, please"),
    reason && h("p", { class: "failure", role: "alert" }, reason),
    h("p", null, "This server has projects, and each request needs a token. It is kept in this tab alone, until you close it."),
    labelled("Token", token),
    h("div", { class: "actions" }, h("button", { type: "submit", class: "primary" }, "Use the token")),
    h("p", { class: "hint" }, "Make one with ", h("code", null, "fluvial token mint PROJECT --scope write"), ", or as an operator with ", h("code", null, "fluvial token mint '*' --scope manage --secret-file FILE"), "."))
  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault()
    signIn(token.value.trim().replace(/^Bearer\s+/i, ""))
  })
  return form
}

/** @param {() => void} [after] */
export function signInDialog(after) {
  const token = h("input", { type: "password", required: true, autocomplete: "off", spellcheck: "false" })
  openDialog({
    title: "Use a token",
    content: [labelled("Token", token, "It is kept in this tab alone.")],
    action: "Use the token",
    submit: () => {
      signIn(token.value.trim().replace(/^Bearer\s+/i, ""))
      after?.()
    },
  })
}
