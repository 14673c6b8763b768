// A page in Chromium that comes from another port of this machine, as in development.
import assert from "node:assert/strict"
import { readFile, rm } from "node:fs/promises"
import { mkdtemp } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, afterEach, before, beforeEach, test } from "node:test"
import { chromium } from "playwright-core"
import { eventually, newUrl, pause, startApp } from "./support.mjs"

// This machine has no display, and the browser has nobody to call.
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
]
const CLIENT = createRequire(import.meta.url).resolve("@durable-streams/client").replace(/\.cjs$/, ".js")
const PAGE = `<!doctype html><title>A page</title><script type="module">
  import * as client from "/client.js"
  window.client = client
</script>`

let site
let profile
let browser
let page
let complaints

before(async () => {
  const script = await readFile(CLIENT, "utf8")
  site = await startApp(async (request) => {
    const { pathname } = new URL(request.url)
    if (pathname === "/client.js") return new Response(script, { headers: { "content-type": "text/javascript" } })
    if (pathname === "/") return new Response(PAGE, { headers: { "content-type": "text/html" } })
    return new Response(null, { status: 404 })
  })
  profile = await mkdtemp(join(tmpdir(), "chromium-"))
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: FLAGS,
  })
})

after(async () => {
  await browser.close()
  site.close()
  await rm(profile, { recursive: true, force: true })
})

beforeEach(async () => {
  complaints = []
  page = await browser.newPage()
  page.on("pageerror", (error) => complaints.push(error.message))
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()))
  await page.goto(site.url.replace("127.0.0.1", "localhost"))
  await page.waitForFunction(() => window.client !== undefined)
})

afterEach(async () => {
  await page.close()
})

const isComplaint = (text) => !text.includes("favicon")

test("the client creates, writes and reads from a page", async () => {
  const read = await page.evaluate(async (url) => {
    const { DurableStream, IdempotentProducer, stream } = window.client
    const handle = await DurableStream.create({ url, contentType: "application/json" })
    await handle.append(JSON.stringify({ text: "from a page 😀" }))
    const producer = new IdempotentProducer(handle, "page", { autoClaim: true })
    producer.append("2")
    producer.append("3")
    await producer.flush()
    const first = await stream({ url, live: false })
    const items = await first.json()
    await handle.append("4")
    const rest = await stream({ url, live: false, offset: first.offset })
    const restItems = await rest.json()
    const { offset } = await handle.head()
    const { finalOffset } = await handle.close()
    const refusal = await handle.append("5").catch((error) => error.headers["stream-closed"])
    await handle.delete()
    return { items, restItems, isAtTail: rest.offset === offset && offset === finalOffset, refusal }
  }, newUrl("page"))
  assert.deepEqual(read, {
    items: [{ text: "from a page 😀" }, 2, 3],
    restItems: [4],
    isAtTail: true,
    refusal: "true",
  })
})

for (const live of ["sse", "long-poll"]) {
  test(`the client follows a stream from a page (${live}) while the server ends its connections`, async () => {
    const url = newUrl("page-live")
    await page.evaluate(
      async ([url, live]) => {
        const { DurableStream, stream } = window.client
        window.got = []
        window.handle = await DurableStream.create({ url, contentType: "application/json" })
        const response = await stream({ url, live })
        response.subscribeJson(async (batch) => window.got.push(...batch.items))
      },
      [url, live],
    )
    const sent = []
    for (let number = 0; number < 15; number++) {
      sent.push(number)
      await page.evaluate((number) => window.handle.append(JSON.stringify(number)), number)
      await pause(200)
    }
    await eventually("the messages", () => page.evaluate(() => window.got), sent)
    assert.deepEqual(complaints.filter(isComplaint), [])
  })
}

for (const offset of ["-1", "now"]) {
  test(`the browser's own EventSource gets each message once (from ${offset}) while connections end`, async () => {
    const url = newUrl("page-eventsource")
    const send = (method, body) => fetch(url, { method, headers: { "content-type": "application/json" }, body })
    await send("PUT", '["before"]')
    await page.evaluate(
      ([url, offset]) => {
        window.got = []
        window.connections = 0
        const source = new EventSource(`${url}?offset=${offset}&live=sse`)
        source.addEventListener("open", () => window.connections++)
        source.addEventListener("data", (event) => window.got.push(...JSON.parse(event.data)))
      },
      [url, offset],
    )
    await eventually("the connection", () => page.evaluate(() => window.connections), 1)
    const sent = offset === "now" ? [] : ["before"]
    while ((await page.evaluate(() => window.connections)) < 3) {
      assert.ok(sent.length < 300, `after ${sent.length} messages still not three connections`)
      sent.push(sent.length)
      await send("POST", `[${sent.at(-1)}]`)
      await pause(100)
    }
    await eventually("the messages", () => page.evaluate(() => window.got), sent)
    await pause(500)
    assert.deepEqual(await page.evaluate(() => window.got), sent)
  })
}

test("the browser's own EventSource gets whole characters and long texts", async () => {
  const url = newUrl("page-text")
  const send = (method, body) => fetch(url, { method, headers: { "content-type": "text/plain" }, body })
  await send("PUT")
  await page.evaluate((url) => {
    window.text = ""
    window.source = new EventSource(`${url}?offset=-1&live=sse`)
    window.source.addEventListener("data", (event) => (window.text += event.data))
  }, url)
  const long = "long 😀 ".repeat(20_000)
  await send("POST", new Uint8Array([0x61, 0xf0, 0x9f]))
  await pause(300)
  await send("POST", new Uint8Array([0x98, 0x80, 0x0a]))
  await send("POST", long)
  await eventually("the length", () => page.evaluate(() => window.text.length), 4 + long.length)
  assert.ok((await page.evaluate(() => window.text)) === "a😀\n" + long)
})
