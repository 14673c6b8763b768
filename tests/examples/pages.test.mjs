// The pages of the examples, in Chromium.
import assert from "node:assert/strict"
import { mkdtemp, readFile, rm } from "node:fs/promises"
import { createServer } from "node:http"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, test } from "node:test"

const { chromium } = createRequire(new URL("../clients/package.json", import.meta.url))("playwright-core")

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
const server = process.env.FLUVIAL_URL
const JSON_TYPE = { "content-type": "application/json" }

let browser
let profile

before(async () => {
  profile = await mkdtemp(join(tmpdir(), "chromium-"))
  browser = await chromium.launchPersistentContext(profile, { executablePath: process.env.CHROMIUM, args: FLAGS })
})

after(async () => {
  await browser.close()
  await rm(profile, { recursive: true, force: true })
})

test("the page of ten lines shows each message once while its connections end", async () => {
  const html = await readFile(new URL("../../examples/eventsource/index.html", import.meta.url))
  const site = createServer((_, answer) => answer.writeHead(200, { "content-type": "text/html" }).end(html))
  await new Promise((resolve) => site.listen(0, "127.0.0.1", resolve))
  const url = `${server}/v1/stream/examples/room`
  const send = (method, message) => fetch(url, { method, headers: JSON_TYPE, body: JSON.stringify([message]) })
  await send("PUT", { say: "<b>before</b>" })
  const page = await browser.newPage()
  let connections = 0
  page.on("response", (response) => (connections += response.url().includes("live=sse")))
  await page.goto(`http://localhost:${site.address().port}/?stream=${encodeURIComponent(url)}`)
  const sent = ["<b>before</b>"]
  while (connections < 3) {
    sent.push(`message ${sent.length}`)
    await send("POST", { say: sent.at(-1) })
    await page.waitForFunction((count) => document.querySelectorAll("li").length >= count, sent.length)
    await page.waitForTimeout(200)
  }
  assert.deepEqual(await page.locator("li").allTextContents(), sent)
  await page.close()
  site.close()
})

test("an answer goes on after a reload, and is whole", async () => {
  const page = await browser.newPage()
  await page.goto(process.env.CHAT_URL)
  await page.fill("input", "Hello")
  await page.click("button")
  const answer = page.locator("#answer")
  const hasBegun = () => document.querySelector("#answer").textContent.length > 40
  await page.waitForFunction(hasBegun)
  await page.reload()
  await page.waitForFunction(hasBegun)
  const partial = await answer.textContent()
  const whole = "You said: Hello. " + "A stream is kept in order, and a reader goes on where it stopped. ".repeat(6).trim()
  assert.ok(whole.startsWith(partial) && partial.length < whole.length, `the reload came too late: ${partial}`)
  await page.waitForFunction((length) => document.querySelector("#answer").textContent.length >= length, whole.length)
  await page.reload() // after the end, too
  await page.waitForFunction((length) => document.querySelector("#answer").textContent.length >= length, whole.length)
  await page.waitForTimeout(300)
  assert.equal(await answer.textContent(), whole)
  await page.close()
})
