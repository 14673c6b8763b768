// @ts-check
// Follows a stream by server-sent events over fetch, which can send a token, and goes on from the last offset when a
// connection ends. EventSource could do neither.
import { Refused, request, streamUrl } from "./api.js"
import { events } from "./sse.js"
import { parseJson } from "./render.js"

/** So long to wait before the next try, at first and at most. */
const WAIT_MS = 500
const WAIT_MS_MAX = 10_000

/**
 * @typedef {"connecting" | "live" | "lost" | "closed" | "gone" | "refused"} State
 * @typedef {{messages: any[], start: string, end: string}} Batch messages between two offsets
 */

/**
 * Follow a stream until it ends or `signal` aborts.
 * @param {{name: string, offset: string, contentType: string}} wanted
 * @param {{onBatch: (batch: Batch) => void, onState: (state: State, reason?: string) => void}} listener
 * @param {AbortSignal} signal
 */
export async function follow({ name, offset, contentType }, { onBatch, onState }, signal) {
  let at = offset
  let waitMs = WAIT_MS
  onState("connecting")
  while (!signal.aborted) {
    try {
      const url = streamUrl(name)
      url.search = new URLSearchParams({ offset: at, live: "sse" }).toString()
      const response = await request(url, { signal })
      const decode = decoder(response, contentType)
      onState("live")
      /** @type {string[]} */
      let parts = []
      for await (const event of events(/** @type {ReadableStream<Uint8Array>} */ (response.body))) {
        if (event.type === "data") parts.push(event.data)
        if (event.type !== "control") continue
        const control = JSON.parse(event.data)
        if (parts.length) onBatch({ messages: decode(parts), start: at, end: control.streamNextOffset })
        parts = []
        at = control.streamNextOffset
        waitMs = WAIT_MS
        if (control.streamClosed) return onState("closed")
      }
      continue // the server ends each connection after a while
    } catch (error) {
      if (signal.aborted) return
      if (error instanceof Refused && error.status !== 429 && error.status < 500) return onState(error.status === 404 || error.status === 410 ? "gone" : "refused", error.message)
      onState("lost", error instanceof Error ? error.message : undefined)
    }
    await pause(waitMs * (0.75 + Math.random() / 2), signal)
    waitMs = Math.min(2 * waitMs, WAIT_MS_MAX)
  }
}

/** @param {number} ms @param {AbortSignal} signal */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve(undefined)), { once: true })
  })
}

/** How the data of an answer becomes messages. @param {Response} response @param {string} contentType @returns {(parts: string[]) => any[]} */
function decoder(response, contentType) {
  if (response.headers.get("stream-sse-data-encoding") === "base64") return (parts) => [fromBase64(parts.join(""))]
  return isJson(contentType) ? (parts) => parts.flatMap(parseJson) : (parts) => [parts.join("")]
}

/** @param {string} text @returns {Uint8Array} */
export const fromBase64 = (text) => Uint8Array.from(atob(text.replaceAll("\n", "")), (one) => one.charCodeAt(0))

/** @param {string} contentType */
export const isJson = (contentType) => /^application\/json\s*(;|$)/i.test(contentType)

/** @param {string} contentType */
export const isText = (contentType) => isJson(contentType) || /^text\//i.test(contentType)

/** One page of a stream from an offset on. @param {string} name @param {string} offset @returns {Promise<Batch>} */
export async function readPage(name, offset) {
  const url = streamUrl(name)
  url.search = new URLSearchParams({ offset }).toString()
  const response = await request(url)
  const end = response.headers.get("stream-next-offset") ?? offset
  const type = response.headers.get("content-type") ?? ""
  if (isJson(type)) return { messages: parseJson(await response.text()), start: offset, end }
  if (isText(type)) return { messages: [await response.text()], start: offset, end }
  return { messages: [new Uint8Array(await response.arrayBuffer())], start: offset, end }
}
