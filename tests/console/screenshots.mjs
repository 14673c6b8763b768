// Takes the pictures of docs/console.md: `make screenshots`. They are of a server with a few streams in it.
import { join } from "node:path"
import { closed, launch, newPage, open, send } from "./browser.mjs"

const FOLDER = process.env.IMAGES
const stream = (name) => `${open}/v1/stream/${name}`

for (const [name, count] of [["chat/room-1", 42], ["chat/room-2", 3], ["builds/main/1841", 12], ["builds/main/1842", 7], ["orders", 128]]) {
  await send(stream(name), "PUT")
  const messages = Array.from({ length: count }, (_, index) => ({ id: 1000 + index, user: ["ada", "grace", "edsger"][index % 3], text: ["Is the new index live?", "It is, since ten o'clock.", "Then let us try the replay."][index % 3], tags: ["search", "ops"], at: `2026-11-25T10:${String(index % 60).padStart(2, "0")}:00Z` }))
  await send(stream(name), "POST", JSON.stringify(messages), { "Producer-Id": "chat-server", "Producer-Epoch": "0", "Producer-Seq": "0" })
}
await send(stream("tokens/answer-17"), "PUT", "Once a stream is written, every reader may go on from where it was.", { "Content-Type": "text/plain" })
await send(stream("frames"), "PUT", new Uint8Array(300).map((_, index) => (index * 37) % 256), { "Content-Type": "application/octet-stream" })
await send(stream("chat/room-1-replay"), "PUT", null, { "Stream-Forked-From": "/v1/stream/chat/room-1" })

const { browser, close } = await launch()
const other = await newPage(browser)
await other.goto(`${open}/#/streams/chat/room-1`)
await other.waitForSelector("[data-state=live]")
const page = await newPage(browser)
const shot = (name) => page.screenshot({ path: join(FOLDER, `console-${name}.png`) })

await page.goto(`${open}/#/streams/orders`)
await page.waitForSelector("[data-state=live]")
await page.locator("summary").last().click()
await page.locator(".messages").evaluate((list) => (list.scrollTop = list.scrollHeight))
await page.waitForTimeout(5_500)
await shot("streams")

await page.emulateMedia({ colorScheme: "dark" })
await page.goto(`${open}/#/streams/chat/room-1`)
await page.waitForSelector("[data-state=live]")
await send(stream("chat/room-1"), "POST", JSON.stringify({ id: 1042, user: "ada", text: "It came at once.", tags: [] }))
await page.waitForTimeout(500)
await page.locator("summary").nth(-2).click()
await page.locator(".messages").evaluate((list) => (list.scrollTop = list.scrollHeight))
await page.waitForTimeout(300)
await shot("live-dark")
await page.emulateMedia({ colorScheme: "light" })
await page.goto(`${open}/#/streams/frames`)
await page.waitForSelector("[data-state=live]")
await page.waitForTimeout(300)
if (process.env.ALL_SHOTS) await shot("bytes")
await page.goto(`${open}/#/`)
await page.waitForTimeout(300)
if (process.env.ALL_SHOTS) await shot("welcome")
await page.goto(`${open}/#/projects`)
await page.waitForTimeout(300)
if (process.env.ALL_SHOTS) await shot("no-projects")
await page.goto(`${open}/#/streams/tokens/answer-17`)
await page.waitForSelector("[data-state=live]")
await page.waitForTimeout(300)
if (process.env.ALL_SHOTS) await shot("text")
await page.keyboard.press("?")
if (process.env.ALL_SHOTS) await shot("keys")
await page.keyboard.press("Escape")

if (closed) {
  await page.goto(`${closed}/`)
  await page.waitForSelector(".sign-in")
  if (process.env.ALL_SHOTS) await shot("sign-in")
  await page.getByLabel("Token", { exact: true }).fill(process.env.OPERATOR_TOKEN)
  await page.keyboard.press("Enter")
  await page.goto(`${closed}/#/projects`)
  await page.getByRole("button", { name: "New project" }).click()
  await page.getByLabel("Name").fill("shop")
  if (process.env.ALL_SHOTS) await shot("new-project")
  await page.getByRole("button", { name: "Create" }).click()
  await page.getByRole("button", { name: "Make a token" }).click()
  await page.waitForTimeout(300)
  await shot("project")
}

await page.setViewportSize({ width: 360, height: 740 })
await page.goto(`${open}/#/streams/chat/room-2`)
await page.waitForSelector("[data-state=live]")
await page.waitForTimeout(300)
await shot("phone")
await close()
