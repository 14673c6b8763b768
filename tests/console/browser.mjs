// Chromium with the console, and what every page of it must hold: no complaint, no request to another host.
import assert from "node:assert/strict"
import { mkdtemp, rm } from "node:fs/promises"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"

const { chromium } = createRequire(new URL("../clients/package.json", import.meta.url))("playwright-core")

// This machine has no display, and the browser has nobody to call.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-lcd-text", "--enable-precise-memory-info", "--js-flags=--expose-gc"]

export const open = (process.env.FLUVIAL_URL ?? "").replace("127.0.0.1", "localhost")
export const closed = process.env.FLUVIAL_PROJECTS_URL ?? ""

export async function launch(options = {}) {
  const profile = await mkdtemp(join(tmpdir(), "console-"))
  const browser = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: FLAGS,
    viewport: { width: 1180, height: 720 },
    permissions: ["clipboard-read", "clipboard-write"],
    ...options,
  })
  browser.setDefaultTimeout(10_000)
  return {
    browser,
    close: async () => {
      await browser.close()
      await rm(profile, { recursive: true, force: true })
    },
  }
}

// A page that keeps what it complained of and what it asked for.
export async function newPage(browser) {
  const page = await browser.newPage()
  page.complaints = []
  page.requested = []
  page.on("pageerror", (error) => page.complaints.push(error.message))
  page.on("console", (message) => message.type() === "error" && page.complaints.push(message.text()))
  page.on("request", (request) => page.requested.push(request.url()))
  page.on("dialog", (dialog) => {
    page.complaints.push(`a dialog says ${dialog.message()}`)
    dialog.dismiss()
  })
  return page
}

// Refusals that a test provokes are told by the browser as failed loads; nothing else may be.
export function checkManners(page, { mayBeRefused = false } = {}) {
  const complaints = page.complaints.filter((text) => !(mayBeRefused && text.startsWith("Failed to load resource")))
  assert.deepEqual(complaints, [])
  const own = [open, closed].filter(Boolean)
  for (const url of page.requested) {
    assert.ok(own.some((server) => url.startsWith(`${server}/`)) || url.startsWith("data:"), `a request to ${url}`)
    assert.ok(!/[?&]token=/.test(url), "a token in a URL")
  }
}

export async function send(url, method, body, headers = {}) {
  const response = await fetch(url, { method, body, headers: { "Content-Type": "application/json", ...headers } })
  assert.ok(response.ok, `${method} ${url}: ${response.status} ${response.ok ? "" : await response.text()}`)
  return response
}
