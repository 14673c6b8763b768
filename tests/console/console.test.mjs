// The console in Chromium, as people use it: what they click and type, what they then see.
import assert from "node:assert/strict"
import { execFile } from "node:child_process"
import { writeFile } from "node:fs/promises"
import { after, afterEach, before, beforeEach, test } from "node:test"
import { promisify } from "node:util"
import { eventually } from "../clients/support.mjs"
import { checkManners, closed, launch, newPage, open, send } from "./browser.mjs"

const MARKUP = `<img src=x onerror="window.ran=1"><script>window.ran=2</script>`
const run = promisify(execFile)
const stream = (name) => `${open}/v1/stream/${name}`

let chromium
let page
let manners

before(async () => {
  chromium = await launch()
})
after(() => chromium.close())
beforeEach(async () => {
  manners = {}
  page = await newPage(chromium.browser)
})
afterEach(async () => {
  checkManners(page, manners)
  assert.equal(await page.evaluate(() => window.ran), undefined)
  await page.evaluate(() => sessionStorage.clear())
  await page.close()
})

const button = (name) => page.getByRole("button", { name, exact: true })
const field = (name) => page.getByLabel(name, { exact: true })
const live = () => page.waitForSelector("[data-state=live]")
const shown = () => page.locator(".messages").innerText()
const goTo = (name, server = open) => page.goto(`${server}/#/${name}`)

test("a stream is created, written to, seen live, forked, closed and deleted", async () => {
  await page.goto(open)
  await button("New").click()
  await field("Name").fill("made here/room 1")
  await button("Create").click()
  await page.getByRole("heading", { name: "made here/room 1" }).waitFor()
  await live()
  await page.getByText("No messages yet").waitFor()
  await field("Message").fill("{not json")
  await button("Append").click()
  await page.getByText("This is not JSON").waitFor()
  await field("Message").fill('{"big": 12345678901234567890, "text": "from the page"}')
  await page.keyboard.press("Control+Enter")
  await eventually("the message", async () => (await shown()).includes("12345678901234567890"), true)
  await send(stream("made%20here/room%201"), "POST", '["one from elsewhere", 2]')
  await eventually("both kinds", async () => (await shown()).includes("from elsewhere"), true)
  assert.equal(await page.locator(".counter").innerText(), "3 messages")
  await page.getByRole("treeitem", { name: /^room 1, \d+ B, 1 reader/ }).waitFor({ timeout: 15_000 })
  await button("Fork").click()
  await field("Name of the fork").fill("made here/fork")
  await page.locator("dialog").getByRole("button", { name: "Fork" }).click()
  await page.getByRole("heading", { name: "made here/fork" }).waitFor()
  await page.getByText("Fork of").waitFor()
  await button("Close").click()
  await button("Close for good").click()
  await page.locator("[data-state=closed]").waitFor()
  await page.getByText("The stream is closed.").waitFor()
  await button("Delete").click()
  await field("Type made here/fork to confirm").fill("another")
  await page.locator("dialog").getByRole("button", { name: "Delete" }).click()
  await page.getByText("This is not its name.").waitFor()
  await field("Type made here/fork to confirm").fill("made here/fork")
  await page.keyboard.press("Enter")
  await page.getByText("Choose a stream").waitFor()
  assert.equal((await fetch(stream("made%20here/fork"), { method: "HEAD" })).status, 404)
})

test("text is joined, and bytes are shown in hex", async () => {
  await send(stream("kinds/text"), "PUT", "to", { "Content-Type": "text/plain" })
  await send(stream("kinds/bytes"), "PUT", new Uint8Array([0, 255, 0x41]), { "Content-Type": "image/png" })
  await goTo("streams/kinds/text")
  await live()
  await send(stream("kinds/text"), "POST", "gether 😀", { "Content-Type": "text/plain" })
  await eventually("the text", shown, "together 😀")
  await goTo("streams/kinds/bytes")
  await eventually("the dump", async () => (await shown()).includes("00000000  00 ff 41 "), true)
})

test("markup in names, messages, types, producers and errors stays text", async () => {
  manners.mayBeRefused = true
  const name = `markup/${encodeURIComponent(MARKUP)}`
  await send(stream(name), "PUT", null, { "Content-Type": "application/json" })
  await send(stream(name), "POST", JSON.stringify([MARKUP, { [MARKUP]: [MARKUP], __proto__: null, constructor: MARKUP }]), { "Producer-Id": MARKUP, "Producer-Epoch": "0", "Producer-Seq": "0" })
  await send(stream("markup/text"), "PUT", MARKUP, { "Content-Type": `text/html; note="${MARKUP.replaceAll('"', "'")}"` })
  await goTo(`streams/${name}`)
  await live()
  await eventually("the message", async () => (await shown()).includes("onerror="), true)
  for (const summary of await page.locator("summary").all()) await summary.click()
  await page.locator(".json-key", { hasText: "onerror" }).waitFor()
  await page.locator("td", { hasText: MARKUP }).waitFor()
  await page.getByRole("treeitem", { name: new RegExp("^<img src=x") }).waitFor()
  await goTo("streams/markup/text")
  await eventually("the text", shown, MARKUP)
  await page.locator(".badge", { hasText: "<img" }).waitFor()
  await goTo(`streams/${encodeURIComponent(`none${MARKUP}`)}`)
  await page.getByText("There is no stream of this name.").waitFor()
  await button("Use a token").click()
  await field("Token").fill(`a.${btoa(JSON.stringify({ sub: MARKUP, scope: MARKUP }))}.c`)
  await page.keyboard.press("Enter")
  await page.locator("#identity option", { hasText: "<img" }).waitFor({ state: "attached" })
  assert.equal(await page.locator("img:not([src='console/icon.svg']), script:not([src='console/app.js'])").count(), 0)
  const refusal = await page.evaluate(() => {
    try {
      document.body.innerHTML = "<p>"
    } catch (error) {
      return error.name
    }
  })
  assert.equal(refusal, "TypeError")
  page.complaints = page.complaints.filter((text) => !/TrustedHTML/.test(text))
})

test("ten thousand messages are followed in a page that does not grow", async () => {
  await send(stream("long"), "PUT")
  await goTo("streams/long")
  await live()
  const append = (from) => send(stream("long"), "POST", JSON.stringify(Array.from({ length: 500 }, (_, index) => ({ number: from + index, text: "x".repeat(200) }))))
  const measure = async () => {
    const session = await chromium.browser.newCDPSession(page)
    await session.send("HeapProfiler.collectGarbage")
    const { metrics } = await session.send("Performance.enable").then(() => session.send("Performance.getMetrics"))
    await session.detach()
    const of = (name) => metrics.find((one) => one.name === name).value
    return { heap: of("JSHeapUsedSize"), nodes: of("Nodes"), elements: await page.locator("*").count() }
  }
  for (let from = 1; from <= 2_000; from += 500) await append(from)
  await eventually("the first", () => page.locator(".counter").innerText(), "2,000 messages")
  const early = await measure()
  for (let from = 2_001; from <= 10_000; from += 500) await append(from)
  await eventually("all", () => page.locator(".counter").innerText(), "10,000 messages")
  const late = await measure()
  assert.equal(await page.locator("[data-number]").count(), 300)
  assert.match(await shown(), /number: 10000,/)
  assert.ok(late.elements < 2_500, `${late.elements} elements`)
  assert.ok(late.elements - early.elements < 100, `${early.elements} elements, then ${late.elements}`)
  assert.ok(late.nodes < early.nodes + 4_000, `${early.nodes} nodes, then ${late.nodes}`)
  assert.ok(late.heap < early.heap + 2_000_000, `${early.heap} bytes, then ${late.heap}`)
  // Paused, the page stays as it is and says how many are newer; older ones are read again.
  await button("Pause").click()
  await append(10_001)
  await page.getByText("Paused, 500 newer – resume").waitFor()
  await button("Older").click()
  await eventually("older ones", async () => Number(await page.locator("[data-number]").last().getAttribute("data-number")), 9_700)
  await button("Older").click()
  await eventually("still older ones", async () => Number(await page.locator("[data-number]").last().getAttribute("data-number")) < 9_700, true)
  await button("Resume").click()
  await eventually("the newest", async () => Number(await page.locator("[data-number]").last().getAttribute("data-number")), 10_500)
})

test("a stream goes on by itself when the connection was lost", async () => {
  manners.mayBeRefused = true
  await send(stream("lost"), "PUT", "1")
  await goTo("streams/lost")
  await live()
  await chromium.browser.setOffline(true)
  await page.locator("[data-state=lost]").waitFor({ timeout: 15_000 })
  await page.getByText("The server is not available").waitFor({ timeout: 15_000 })
  await send(stream("lost"), "POST", '"meanwhile"')
  await chromium.browser.setOffline(false)
  await eventually("what came meanwhile", async () => (await page.locator(".message").allInnerTexts()).map((text) => text.split("\n").at(-1)), ["1", '"meanwhile"'])
  await live()
})

test("a server that is not ours is said to be none", async () => {
  await page.route("**/health", (route) => route.fulfill({ body: "<p>Welcome", contentType: "text/html" }))
  await page.goto(open)
  await page.getByText("The answer is not that of a Fluvial server.").waitFor()
})

test("snippets that were copied do what they say", async () => {
  const name = `it's/"q$uoted"`.split("/").map(encodeURIComponent).join("/")
  await send(stream(name), "PUT", '{"n": 1}')
  await goTo(`streams/${name}`)
  await live()
  const copied = async (language, action) => {
    await field("Language").selectOption(language)
    await field("To").selectOption(action)
    await button("Copy the code").click()
    return await page.evaluate(() => navigator.clipboard.readText())
  }
  assert.match((await run("sh", ["-c", await copied("curl", "read")])).stdout, /\[\{"n": ?1\}\]/)
  await run("sh", ["-c", await copied("curl", "append")])
  await run(process.env.PYTHON, ["-c", await copied("Python", "append")])
  const read = await run(process.env.PYTHON, ["-c", await copied("Python", "read")])
  assert.equal(read.stdout, "{'n': 1}\n{'hello': 'world'}\n{'hello': 'world'}\n")
  const script = new URL("../clients/node_modules/.console-snippet.mjs", import.meta.url)
  await writeFile(script, await copied("TypeScript", "append"))
  await run("node", [script.pathname])
  await writeFile(script, await copied("TypeScript", "read"))
  assert.match((await run("node", [script.pathname])).stdout, /hello: 'world'/)
  await eventually("all of it", () => page.locator(".counter").innerText(), "4 messages")
})

test("keys alone lead through the page, and each control has a name", async () => {
  for (const name of ["keys/a", "keys/b", "keyz"]) await send(stream(name), "PUT", "1")
  await page.goto(open)
  await page.getByRole("treeitem", { name: /^keys/ }).waitFor()
  await page.keyboard.press("Tab")
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content")
  await page.keyboard.press("?")
  await page.getByRole("heading", { name: "Keyboard shortcuts" }).waitFor()
  await page.keyboard.press("Escape")
  await page.keyboard.press("/")
  await page.keyboard.type("key")
  await page.getByText("3 streams").waitFor()
  await page.keyboard.press("Tab")
  const focused = () => page.evaluate(() => document.activeElement.getAttribute("data-path"))
  assert.equal(await focused(), "keys")
  const item = page.getByRole("treeitem", { name: /^keys/ })
  if ((await item.getAttribute("aria-expanded")) === "true") await page.keyboard.press("ArrowLeft")
  assert.equal(await item.getAttribute("aria-expanded"), "false")
  await page.keyboard.press("ArrowRight")
  assert.equal(await item.getAttribute("aria-expanded"), "true")
  await page.keyboard.press("ArrowRight")
  assert.equal(await focused(), "keys/a")
  await page.keyboard.press("End")
  assert.equal(await focused(), "keyz")
  await page.keyboard.press("Home")
  await page.keyboard.press("ArrowDown")
  await page.keyboard.press("ArrowDown")
  await page.keyboard.press("Enter")
  await page.getByRole("heading", { name: "keys/b", level: 1 }).waitFor()
  await live()
  assert.equal(await page.locator("[aria-selected=true]").getAttribute("data-path"), "keys/b")
  await page.keyboard.press("w")
  await page.keyboard.type('"by keys"')
  await page.keyboard.press("Control+Enter")
  await eventually("the message", async () => (await shown()).includes("by keys"), true)
  await eventually("what a screen reader says", async () => /new message/.test(await page.locator("#announcer").textContent()), true)
  const nameless = await page.evaluate(() => {
    const named = (element) => element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") || element.labels?.length || element.textContent.trim()
    return [...document.querySelectorAll("button, a, input, select, textarea, [role=tree], [role=treeitem], section, dialog")].filter((element) => !element.closest("[hidden]") && !named(element)).map((element) => element.outerHTML)
  })
  assert.deepEqual(nameless, [])
  const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map((element) => element.id))
  assert.equal(new Set(ids).size, ids.length)
  assert.equal(await page.locator("h1").count(), 1)
  assert.equal(await page.locator("[role=treeitem][tabindex='0']").count(), 1)
})

test("a phone's width has no sideways scrolling, and dark is dark", async () => {
  await page.setViewportSize({ width: 360, height: 740 })
  await send(stream("narrow"), "PUT", JSON.stringify([{ text: "wide ".repeat(80) }, "w".repeat(400)]))
  for (const path of ["", "streams/narrow", "projects"]) {
    await goTo(path)
    await page.waitForSelector("h1")
    if (path === "streams/narrow") await live()
    const widths = await page.evaluate(() => [document.documentElement.scrollWidth, document.body.scrollWidth])
    assert.ok(Math.max(...widths) <= 360, `${path}: ${widths}`)
  }
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  const light = await ground()
  await page.emulateMedia({ colorScheme: "dark" })
  const dark = await ground()
  assert.notEqual(dark, light)
  await page.emulateMedia({ colorScheme: "light" })
  await page.locator("#theme").click()
  assert.equal(await ground(), dark)
  await page.evaluate(() => localStorage.clear())
})

test("an operator makes a project and tokens, which read; without one nothing is read", async () => {
  manners.mayBeRefused = true
  await page.goto(closed)
  await field("Token").fill("no.such.token")
  await button("Use the token").click()
  await page.getByText(/the token is not valid/).first().waitFor()
  await page.getByRole("combobox", { name: "Token in use" }).selectOption("add")
  await page.locator("dialog").getByLabel("Token", { exact: true }).fill(process.env.OPERATOR_TOKEN)
  await page.keyboard.press("Enter")
  await page.getByRole("link", { name: "Projects" }).click()
  await button("New project").click()
  await field("Name").fill("shop")
  await field("Origins").fill("https://app.example")
  await button("Create").click()
  await page.getByRole("heading", { name: "shop" }).waitFor()
  assert.equal((await page.locator(".once code").innerText()).length, 43)
  // A token that may write makes a stream; one for a single stream reads that and no other.
  const mint = async (scope, name) => {
    await field("Scope").selectOption(scope)
    await field("Stream").fill(name)
    await button("Make a token").click()
    await page.locator(".mint code").waitFor()
    return await page.locator(".mint code").innerText()
  }
  const writer = await mint("write", "")
  const auth = { Authorization: `Bearer ${writer}` }
  await send(`${closed}/v1/stream/shop/orders`, "PUT", '{"order": 1}', auth)
  await send(`${closed}/v1/stream/shop/other`, "PUT", '{"order": 2}', auth)
  const before = await page.locator(".mint code").innerText()
  const reader = await mint("read", "orders").then(async () => {
    await eventually("another token", async () => (await page.locator(".mint code").innerText()) !== before, true)
    return await page.locator(".mint code").innerText()
  })
  const status = async (name, token) => (await fetch(`${closed}/v1/stream/shop/${name}?offset=-1`, { headers: token ? { Authorization: `Bearer ${token}` } : {} })).status
  assert.deepEqual([await status("orders", reader), await status("other", reader), await status("orders", null)], [200, 403, 401])
  await field("Everybody may read its streams, without a token").check()
  await button("Save the privacy").click()
  await page.locator(".badge", { hasText: "public" }).waitFor()
  await field("Everybody may read its streams, without a token").uncheck()
  await button("Save the privacy").click()
  await page.locator(".badge", { hasText: "private" }).waitFor()
  await field("Requests per second").fill("1000")
  await button("Save the limits").click()
  await eventually("the limit", async () => (await (await fetch(`${closed}/v1/projects/shop`, { headers: { Authorization: `Bearer ${process.env.OPERATOR_TOKEN}` } })).json()).limits.requestsPerSecond, 1_000)
  await button("Add a secret").click()
  await button("Add").click()
  await page.getByRole("button", { name: /^Remove the secret/ }).nth(1).waitFor()
  // In the page: the token reads its stream live, and is refused the other one.
  await page.getByRole("combobox", { name: "Token in use" }).selectOption("add")
  await page.locator("dialog").getByLabel("Token", { exact: true }).fill(reader)
  await page.keyboard.press("Enter")
  await goTo("streams/shop/orders", closed)
  await eventually("the order", async () => (await shown()).includes("order: 1"), true)
  await send(`${closed}/v1/stream/shop/orders`, "POST", '{"order": 3}', auth)
  await eventually("the next order, live", async () => (await shown()).includes("order: 3"), true)
  await field("Message").fill("4")
  await button("Append").click()
  await page.getByText("this needs a token with the scope write").waitFor()
  await goTo("streams/shop/other", closed)
  await page.getByText("the token is not for this stream").waitFor()
  const kept = await page.evaluate(() => [JSON.stringify(localStorage), document.cookie, location.href])
  assert.ok(!kept.some((text) => text.includes(reader)), "the token is kept elsewhere")
  await button("Forget").click()
  await page.getByRole("combobox", { name: "Token in use" }).selectOption("-1")
  await page.getByRole("heading", { name: "A token, please" }).waitFor()
})

test("the first project of an open server tells what it would cut off, and closes the server", async () => {
  manners.mayBeRefused = true
  await send(stream("cut/off"), "PUT", "1")
  const anonymous = await newPage(chromium.browser)
  await anonymous.goto(`${open}/#/streams/cut/off`)
  await anonymous.waitForSelector("[data-state=live]")
  await page.bringToFront() // a page behind another one is drawn rarely
  await page.goto(`${open}/#/projects`)
  await page.getByText("fluvial project create NAME").waitFor()
  await button("Use an operator's token").click()
  await field("Token").fill(process.env.OPERATOR_TOKEN)
  await page.keyboard.press("Enter")
  await button("New project").click()
  await field("Name").fill("first")
  await button("Create").click()
  await page.getByText(/cuts off \d+ stream/).waitFor()
  await field("Create it all the same").check()
  await button("Create").click()
  await page.getByRole("heading", { name: "first" }).waitFor()
  await anonymous.getByRole("heading", { name: "A token, please" }).waitFor()
  await anonymous.close()
})
