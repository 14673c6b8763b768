// @durable-streams/y-durable-streams: its server keeps documents in our streams, and compacts them.
import { DurableStream, stream } from "@durable-streams/client"
import { YjsProvider } from "@durable-streams/y-durable-streams"
import { YjsServer } from "@durable-streams/y-durable-streams/server"
import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { afterEach, beforeEach, test } from "node:test"
import { Awareness } from "y-protocols/awareness"
import * as Y from "yjs"
import { eventually, pause, server, within } from "./support.mjs"

const COMPACTION_BYTES = 1500
const SERVICE = "clients"

let yjs
let opened
let errors

beforeEach(async () => {
  opened = []
  errors = []
  yjs = await startYjs()
})

afterEach(async () => {
  await Promise.all(opened.map(({ provider }) => provider.disconnect()))
  await yjs.stop()
  assert.deepEqual(errors, [])
})

async function startYjs() {
  const started = new YjsServer({ dsServerUrl: server, compactionThreshold: COMPACTION_BYTES })
  await started.start()
  return started
}

// A client with the document open, once it has seen all that is there.
async function open(docId, options = {}) {
  const doc = new Y.Doc()
  const provider = new YjsProvider({ doc, docId, baseUrl: `${yjs.url}/v1/yjs/${SERVICE}`, connect: false, ...options })
  const client = { doc, provider, lines: () => doc.getArray("lines").toArray() }
  opened.push(client)
  await within(
    `opening ${docId}`,
    new Promise((resolve, reject) => {
      provider.on("synced", (isSynced) => isSynced && resolve())
      provider.on("error", (error) => {
        errors.push(error.message)
        reject(error)
      })
      provider.connect()
    }),
  )
  return client
}

// The snapshot that the Yjs server has noted last, by its offset.
async function lastSnapshot(docId) {
  const url = `${server}/v1/stream/yjs/${SERVICE}/docs/${docId}/.index`
  const response = await fetch(url)
  return response.ok ? (await response.json()).at(-1)?.snapshotOffset : undefined
}

// Write lines, one update each, until the Yjs server has made a new snapshot; all of the lines that were written.
async function writeUntilCompacted(client, docId, lineBytes = 60) {
  const before = await lastSnapshot(docId)
  const written = []
  while ((await lastSnapshot(docId)) === before) {
    assert.ok(written.length < 200, `no new snapshot of ${docId} after ${written.length} updates`)
    const line = `line ${written.length} ${"x".repeat(lineBytes)}`
    client.doc.getArray("lines").push([line])
    written.push(line)
    await client.provider.flush()
    await pause(10)
  }
  return written
}

const newDocument = () => `document-${randomUUID()}`

for (const liveMode of ["sse", "long-poll"]) {
  test(`two clients see each other's edits (${liveMode})`, async () => {
    const docId = newDocument()
    const first = await open(docId, { liveMode })
    const second = await open(docId, { liveMode })
    first.doc.getArray("lines").push(["from the first"])
    await eventually("the second", second.lines, ["from the first"])
    await pause(2500) // longer than the server lets a connection live
    second.doc.getArray("lines").push(["from the second 😀"])
    await eventually("the first", first.lines, ["from the first", "from the second 😀"])
  })

  test(`after compactions the next client opens the document and sees all of it (${liveMode})`, async () => {
    const docId = newDocument()
    const first = await open(docId, { liveMode })
    const written = await writeUntilCompacted(first, docId)
    const second = await open(docId, { liveMode })
    assert.deepEqual(second.lines(), written)

    written.push(...(await writeUntilCompacted(first, docId)))
    await eventually("the second", second.lines, written)
    const third = await open(docId, { liveMode })
    assert.deepEqual(third.lines(), written)

    third.doc.getArray("lines").push(["from the third"])
    written.push("from the third")
    await eventually("the first", first.lines, written)
    await eventually("the second", second.lines, written)
  })
}

test("a document that was compacted at its very end opens, and goes on", async () => {
  const docId = newDocument()
  const first = await open(docId)
  first.doc.getText("text").insert(0, "y".repeat(2 * COMPACTION_BYTES)) // one update, and nothing after it
  await first.provider.flush()
  const tail = (await updates(docId).head()).offset
  await eventually("the snapshot", () => lastSnapshot(docId), tail)
  const second = await open(docId)
  assert.equal(second.doc.getText("text").length, 2 * COMPACTION_BYTES)
  first.doc.getText("text").insert(0, "z")
  await eventually("the second", () => second.doc.getText("text").length, 2 * COMPACTION_BYTES + 1)
})

const updates = (docId) => new DurableStream({ url: `${server}/v1/stream/yjs/${SERVICE}/docs/${docId}/.updates` })

test("a compacted document opens after a restart of the Yjs server", async () => {
  const docId = newDocument()
  const first = await open(docId)
  const written = await writeUntilCompacted(first, docId)
  await first.provider.disconnect()
  await yjs.stop()
  yjs = await startYjs()
  const second = await open(docId)
  assert.deepEqual(second.lines(), written)
})

test("the older snapshot is gone and the newer one is whole", async () => {
  const docId = newDocument()
  const first = await open(docId)
  const written = await writeUntilCompacted(first, docId)
  const older = await lastSnapshot(docId)
  written.push(...(await writeUntilCompacted(first, docId)))
  const newer = await lastSnapshot(docId)
  const snapshot = (offset) => `${server}/v1/stream/yjs/${SERVICE}/docs/${docId}/.snapshots/${offset}_snapshot`
  await eventually("the older snapshot", async () => (await fetch(snapshot(older), { method: "HEAD" })).status, 404)
  const content = new Y.Doc()
  Y.applyUpdate(content, await (await stream({ url: snapshot(newer), live: false })).body())
  assert.deepEqual(content.getArray("lines").toArray(), written.slice(0, content.getArray("lines").length))
  assert.ok(newer > older, "offsets sort as text")
})

test("a large paste reaches who is there and who comes later", async () => {
  const docId = newDocument()
  const first = await open(docId)
  const second = await open(docId)
  const paste = "paste 😀 ".repeat(50_000)
  first.doc.getText("text").insert(0, paste)
  const isThere = (client) => client.doc.getText("text").toString() === paste
  await eventually("the second", () => isThere(second), true)
  const third = await open(docId)
  assert.ok(isThere(third))
})

test("a document that was deleted and made anew is empty", async () => {
  const docId = newDocument()
  const first = await open(docId)
  await writeUntilCompacted(first, docId)
  await first.provider.disconnect()
  const deleted = await fetch(`${yjs.url}/v1/yjs/${SERVICE}/docs/${docId}`, { method: "DELETE" })
  assert.equal(deleted.status, 204)
  const second = await open(docId)
  assert.deepEqual(second.lines(), [])
  second.doc.getArray("lines").push(["anew"])
  const third = await open(docId)
  await eventually("the third", third.lines, ["anew"])
})

test("awareness shows who is there", async () => {
  const docId = newDocument()
  const [hers, his] = [new Awareness(new Y.Doc()), new Awareness(new Y.Doc())]
  const first = await open(docId, { awareness: hers })
  await open(docId, { awareness: his })
  await pause(500) // presence is not kept: who comes later sees what is said from then on
  hers.setLocalStateField("name", "Ada")
  await eventually("her name", () => his.getStates().get(hers.clientID)?.name, "Ada")
  await pause(2500) // longer than the server lets a connection live
  hers.setLocalStateField("name", "Ada L.")
  his.setLocalStateField("name", "Charles")
  await eventually("her new name", () => his.getStates().get(hers.clientID)?.name, "Ada L.")
  await eventually("his name", () => hers.getStates().get(his.clientID)?.name, "Charles")
  await first.provider.disconnect()
  await eventually("her going", () => his.getStates().has(hers.clientID), false)
})
