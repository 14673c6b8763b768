// @ts-check
// Writing: append to a stream, close it, fork it, delete it; create one.
import { Refused, request, streamUrl } from "./api.js"
import { openDialog } from "./dialogs.js"
import { announce, h, labelled } from "./dom.js"
import { isJson, isText } from "./follow.js"
import { decodeName, encodeName } from "./names.js"

const TYPES = ["application/json", "text/plain", "application/octet-stream"]

/** @param {{name: string, contentType: string}} stream @param {() => void} onWritten */
export function appendForm({ name, contentType }, onWritten) {
  const text = h("textarea", { rows: 4, spellcheck: "false", placeholder: isJson(contentType) ? '{"hello": "world"}' : "", "aria-keyshortcuts": "w Control+Enter" })
  const file = h("input", { type: "file" })
  const failure = h("p", { class: "failure", role: "alert", hidden: true })
  const send = h("button", { type: "submit", class: "primary" }, "Append")
  const form = h("form", { class: "append" },
    isText(contentType) ? labelled("Message", text, isJson(contentType) ? "Each element of an array is a message of its own." : undefined) : null,
    labelled(isText(contentType) ? "or a file" : "File", file),
    failure, h("div", { class: "actions" }, send))
  text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit()
  })
  form.addEventListener("submit", async (/** @type {Event} */ event) => {
    event.preventDefault()
    failure.hidden = true
    try {
      /** @type {string | ArrayBuffer} */
      let body = text.value
      if (file.files?.length) body = await file.files[0].arrayBuffer()
      else if (isJson(contentType)) checkJson(text.value)
      if ((body instanceof ArrayBuffer ? body.byteLength : body.length) === 0) throw new Error("There is nothing to append.")
      send.disabled = true
      await request(streamUrl(name), { method: "POST", headers: { "Content-Type": contentType }, body })
      text.value = ""
      file.value = ""
      announce("Appended")
      onWritten()
    } catch (error) {
      failure.textContent = error instanceof Error ? error.message : String(error)
      failure.hidden = false
    } finally {
      send.disabled = false
    }
  })
  return form
}

/** @param {string} text */
function checkJson(text) {
  if (text.trim() === "") throw new Error("There is nothing to append.")
  try {
    JSON.parse(text)
  } catch (error) {
    throw new Error(`This is not JSON: ${error instanceof Error ? error.message : error}`)
  }
}

/** @param {{prefix: string, mayBePublic: boolean, onCreated: (name: string) => void}} wanted */
export function createStreamDialog({ prefix, mayBePublic, onCreated }) {
  const name = h("input", { type: "text", required: true, value: prefix, autocomplete: "off", spellcheck: "false" })
  const type = h("input", { type: "text", required: true, value: TYPES[0], list: "content-types", autocomplete: "off" })
  const ttl = h("input", { type: "number", min: 1, placeholder: "for ever" })
  const isPublic = h("input", { type: "checkbox", id: "stream-public" })
  openDialog({
    title: "New stream",
    content: [
      labelled("Name", name, mayBePublic ? "It begins with the project: project/stream" : "Slashes make folders, as in chat/1"),
      labelled("Content type", type, "JSON is kept as messages, text and other types as bytes."),
      h("datalist", { id: "content-types" }, ...TYPES.map((one) => h("option", { value: one }))),
      labelled("Seconds until it expires unless it is used", ttl),
      ...(mayBePublic ? [h("div", { class: "check" }, isPublic, h("label", { for: "stream-public" }, "Everybody may read it, without a token"))] : []),
    ],
    action: "Create",
    submit: async () => {
      const path = encodeName(name.value)
      const url = streamUrl(path)
      if (isPublic.checked) url.searchParams.set("public", "true")
      const headers = { "Content-Type": type.value, ...(ttl.value ? { "Stream-TTL": ttl.value } : {}) }
      const response = await request(url, { method: "PUT", headers })
      if (response.status === 200) throw new Refused(200, "exists", "There is a stream of this name already.")
      onCreated(path)
    },
  })
  name.setSelectionRange(prefix.length, prefix.length)
  name.focus()
}

/** @param {{name: string, tail: string, contentType: string, onForked: (name: string) => void}} wanted */
export function forkDialog({ name, tail, contentType, onForked }) {
  const target = h("input", { type: "text", required: true, value: `${decodeName(name)}-fork`, autocomplete: "off", spellcheck: "false" })
  const offset = h("input", { type: "text", required: true, value: tail, autocomplete: "off", spellcheck: "false" })
  openDialog({
    title: "Fork the stream",
    content: [labelled("Name of the fork", target), labelled("Offset at which it leaves", offset, "An offset of this stream, or -1 for its beginning. The fork has all that comes before.")],
    action: "Fork",
    submit: async () => {
      const path = encodeName(target.value)
      const headers = { "Content-Type": contentType, "Stream-Forked-From": `/v1/stream/${name}`, "Stream-Fork-Offset": offset.value.trim() }
      await request(streamUrl(path), { method: "PUT", headers })
      onForked(path)
    },
  })
}

/** @param {{name: string, onClosed: () => void}} wanted */
export function closeDialog({ name, onClosed }) {
  openDialog({
    title: "Close the stream",
    content: [h("p", null, "Nothing can be appended to ", h("b", null, decodeName(name)), " afterwards, and readers are told that it has ended. It cannot be opened again.")],
    action: "Close for good",
    isDangerous: true,
    submit: async () => {
      await request(streamUrl(name), { method: "POST", headers: { "Stream-Closed": "true" } })
      onClosed()
    },
  })
}

/** @param {{what: string, name: string, isIn: string, remove: () => Promise<unknown>}} wanted */
export function deleteDialog({ what, name, isIn, remove }) {
  const typed = h("input", { type: "text", autocomplete: "off", spellcheck: "false" })
  openDialog({
    title: `Delete the ${what}`,
    content: [h("p", null, isIn), labelled(`Type ${name} to confirm`, typed)],
    action: "Delete",
    isDangerous: true,
    submit: async () => {
      if (typed.value !== name) throw new Error("This is not its name.")
      await remove()
    },
  })
}
