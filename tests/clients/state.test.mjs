// @durable-streams/state: a database in the client, fed by a stream of changes.
import { DurableStream } from "@durable-streams/client"
import { createStateSchema } from "@durable-streams/state"
import { createStreamDB } from "@durable-streams/state/db"
import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { test } from "node:test"
import { JSON_TYPE, eventually, newUrl, pause, within } from "./support.mjs"

const anything = { "~standard": { version: 1, vendor: "none", validate: (value) => ({ value }) } }
const schema = createStateSchema({ users: { schema: anything, type: "user", primaryKey: "id" } })

function open(url, live) {
  return createStreamDB({ streamOptions: { url, contentType: JSON_TYPE }, live, state: schema })
}

const users = (db) =>
  [...db.collections.users.toArray].map(({ id, name }) => [id, name]).sort(([left], [right]) => (left < right ? -1 : 1))

for (const live of [true, "sse"]) {
  test(`two databases on one stream show the same (live: ${live})`, async () => {
    const stream = await DurableStream.create({ url: newUrl("state"), contentType: JSON_TYPE })
    const change = (event) => stream.append(JSON.stringify(event))
    await change(schema.users.insert({ value: { id: "1", name: "Ada" } }))
    const first = open(stream.url, live)
    await within("the first preload", first.preload())
    assert.deepEqual(users(first), [["1", "Ada"]])

    const txid = randomUUID()
    await change(schema.users.insert({ value: { id: "2", name: "Grace" }, headers: { txid } }))
    await within("the transaction", first.utils.awaitTxId(txid, 10_000))
    await pause(2500) // longer than the server lets a connection live
    await change(schema.users.update({ value: { id: "1", name: "Ada L." }, oldValue: { id: "1", name: "Ada" } }))
    await change(schema.users.insert({ value: { id: "3", name: "😀" } }))
    await change(schema.users.delete({ key: "2", oldValue: { id: "2", name: "Grace" } }))
    const expected = [
      ["1", "Ada L."],
      ["3", "😀"],
    ]
    await eventually("the first database", () => users(first), expected)

    const second = open(stream.url, live)
    await within("the second preload", second.preload())
    assert.deepEqual(users(second), expected)
    await eventually("the place of the first", () => first.offset, (await stream.head()).offset)
    assert.equal(second.offset, first.offset)
    first.close()
    second.close()
  })
}
