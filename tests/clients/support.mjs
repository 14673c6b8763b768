// What the scripts share. Each is run by node's own test runner against the server at FLUVIAL_URL.
import assert from "node:assert/strict"
import { createHash, randomUUID } from "node:crypto"
import { createServer } from "node:http"

const TIMEOUT_MS = 20_000

export const server = process.env.FLUVIAL_URL
if (!server) {
  console.error("FLUVIAL_URL must name the server to test, like http://127.0.0.1:4437")
  process.exit(2)
}

export const JSON_TYPE = "application/json"

// A stream's URL that no other test has.
export const newUrl = (name) => `${server}/v1/stream/clients/${name}-${randomUUID()}`

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

// Long values are compared by this, so that a failure stays readable.
export const digest = (content) => `${content.length}:${createHash("sha256").update(content).digest("hex")}`

// Wait until a promise settles, or fail with a line that says what never came.
export async function within(what, promise, ms = TIMEOUT_MS) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

// Wait until a value is as expected; the failure shows the value that it had last.
export async function eventually(what, value, expected, ms = TIMEOUT_MS) {
  const deadline = Date.now() + ms
  let last = await value()
  while (!isSame(last, expected)) {
    if (Date.now() > deadline) assert.deepEqual(last, expected, `${what}, after ${ms} ms`)
    await pause(20)
    last = await value()
  }
}

function isSame(left, right) {
  try {
    assert.deepEqual(left, right)
    return true
  } catch {
    return false
  }
}

// The application's own HTTP server: it answers with what `respond` makes of a web Request.
export async function startApp(respond) {
  const app = createServer(async (incoming, outgoing) => {
    const parts = []
    for await (const part of incoming) parts.push(part)
    const hasBody = incoming.method !== "GET" && incoming.method !== "HEAD"
    const request = new Request(`http://${incoming.headers.host}${incoming.url}`, {
      method: incoming.method,
      headers: incoming.headers,
      body: hasBody ? Buffer.concat(parts) : undefined,
    })
    const response = await respond(request)
    outgoing.writeHead(response.status, Object.fromEntries(response.headers))
    outgoing.end(Buffer.from(await response.arrayBuffer()))
  })
  await new Promise((resolve) => app.listen(0, "127.0.0.1", resolve))
  return {
    url: `http://127.0.0.1:${app.address().port}`,
    close: () => {
      app.closeAllConnections()
      app.close()
    },
  }
}
