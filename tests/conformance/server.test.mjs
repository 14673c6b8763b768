// Runs the public suite against the server at FLUVIAL_URL. Its own CLI finds no tests below node_modules.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"
import { describe } from "vitest"

const { FLUVIAL_URL, FLUVIAL_PREFIX, FLUVIAL_TOKEN, FLUVIAL_LONG_POLL_TIMEOUT, FLUVIAL_SUBSCRIPTIONS } = process.env
const ROOT = "/v1/stream/"

// The suite knows no projects and no tokens. So its requests get a token and go below a prefix, and what it says and
// hears of paths is said without the prefix.
if (FLUVIAL_PREFIX || FLUVIAL_TOKEN) {
  const send = globalThis.fetch
  const parse = JSON.parse
  const inside = (path) => (path.includes(ROOT + FLUVIAL_PREFIX) ? path : path.replace(ROOT, ROOT + FLUVIAL_PREFIX))
  const outside = (text) => text.replaceAll(ROOT + FLUVIAL_PREFIX, ROOT)

  // Subscriptions tell URLs in bodies: of answers, and of webhooks, whose signatures are of the bytes that came.
  JSON.parse = (text, reviver) => parse(typeof text === "string" ? outside(text) : text, reviver)

  globalThis.fetch = async (input, init) => {
    const asked = new Request(input, init)
    const url = new URL(asked.url)
    const headers = new Headers(asked.headers)
    if (FLUVIAL_TOKEN && !headers.has("authorization")) headers.set("authorization", `Bearer ${FLUVIAL_TOKEN}`)
    const source = headers.get("stream-forked-from")
    if (source) headers.set("stream-forked-from", inside(source))
    const answer = await send(url.href.replace(url.pathname, inside(url.pathname)), {
      method: asked.method,
      headers,
      body: asked.body ? await asked.arrayBuffer() : undefined,
      signal: init?.signal,
      redirect: asked.redirect,
    })
    const location = answer.headers.get("location")
    if (!location) return answer
    const fields = new Headers(answer.headers)
    fields.set("location", outside(location))
    return new Response([204, 304].includes(answer.status) ? null : answer.body, { status: answer.status, headers: fields })
  }
}

describe(`fluvial at ${FLUVIAL_URL}`, () => {
  runConformanceTests({
    baseUrl: FLUVIAL_URL,
    longPollTimeoutMs: Number(FLUVIAL_LONG_POLL_TIMEOUT) * 1000,
    subscriptions: FLUVIAL_SUBSCRIPTIONS === "true",
  })
})
