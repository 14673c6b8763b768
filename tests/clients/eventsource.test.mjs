// The EventSource that browsers have (here the package of that name): it knows nothing of offsets, only of ids.
import { EventSource } from "eventsource"
import assert from "node:assert/strict"
import { test } from "node:test"
import { JSON_TYPE, eventually, newUrl, pause } from "./support.mjs"

const send = (method, url, body, type = JSON_TYPE) => fetch(url, { method, headers: { "content-type": type }, body })

test("each message comes once while the server ends its connections", async () => {
  const url = newUrl("eventsource")
  await send("PUT", url, "[1,2,3]")
  const got = []
  let connections = 0
  const source = new EventSource(`${url}?offset=-1&live=sse`)
  source.addEventListener("open", () => connections++)
  source.addEventListener("data", (event) => got.push(...JSON.parse(event.data)))
  const sent = [1, 2, 3]
  for (let number = 4; connections < 3; number++) {
    assert.ok(number < 300, `after ${number} messages only ${connections} connections`)
    sent.push(number)
    await send("POST", url, `[${number}]`)
    await pause(100)
  }
  await eventually("the messages", () => got, sent)
  await pause(500)
  assert.deepEqual(got, sent)
  source.close()
})

test("a reader from now on gets what comes, also what comes while it is away", async () => {
  const url = newUrl("eventsource-now")
  await send("PUT", url, "[1,2,3]")
  const got = []
  let connections = 0
  const source = new EventSource(`${url}?offset=now&live=sse`)
  source.addEventListener("open", () => connections++)
  source.addEventListener("data", (event) => got.push(...JSON.parse(event.data)))
  await eventually("the connection", () => connections > 0, true)
  await pause(200)
  for (let error = 0; error < 2; error++) {
    await new Promise((resolve) => source.addEventListener("error", resolve, { once: true }))
    await send("POST", url, `["while away ${error}"]`)
  }
  await eventually("the messages", () => got, ["while away 0", "while away 1"])
  await pause(500)
  assert.deepEqual(got, ["while away 0", "while away 1"])
  source.close()
})
