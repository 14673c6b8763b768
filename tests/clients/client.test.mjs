// @durable-streams/client: what the other packages are made of.
import { DurableStream, FetchError, IdempotentProducer, stream } from "@durable-streams/client"
import assert from "node:assert/strict"
import { test } from "node:test"
import { JSON_TYPE, digest, eventually, newUrl, pause, within } from "./support.mjs"

const TEXT_TYPE = "text/plain; charset=utf-8"

// Everything that a live reader gets until it is stopped.
async function follow(url, options, consume) {
  const response = await stream({ url, ...options })
  response.closed.catch((error) => console.error(`the reader of ${url} ended: ${error.message}`))
  return { response, stop: consume(response) }
}

test("what was appended is read back, as JSON, text and bytes", async () => {
  const json = await DurableStream.create({ url: newUrl("json"), contentType: JSON_TYPE })
  await Promise.all([1, 2, 3].map((number) => json.append(JSON.stringify({ number }))))
  const items = await (await stream({ url: json.url, live: false })).json()
  assert.deepEqual(items.map((item) => item.number).sort(), [1, 2, 3])

  const text = await DurableStream.create({ url: newUrl("text"), contentType: TEXT_TYPE, body: "first\r\n" })
  await text.append("second 😀\n")
  assert.equal(await (await stream({ url: text.url, live: false })).text(), "first\r\nsecond 😀\n")

  const bytes = await DurableStream.create({ url: newUrl("bytes"), contentType: "application/octet-stream" })
  await bytes.append(new Uint8Array([0, 255, 10, 13, 128]))
  assert.deepEqual([...(await (await stream({ url: bytes.url, live: false })).body())], [0, 255, 10, 13, 128])
})

test("an offset that was kept is where the next read begins", async () => {
  const handle = await DurableStream.create({ url: newUrl("resume"), contentType: JSON_TYPE })
  await handle.append("1")
  const first = await stream({ url: handle.url, live: false })
  assert.deepEqual(await first.json(), [1])
  await handle.append("2")
  const second = await stream({ url: handle.url, live: false, offset: first.offset })
  assert.deepEqual(await second.json(), [2])
  const third = await stream({ url: handle.url, live: false, offset: second.offset })
  assert.deepEqual(await third.json(), [])
  assert.equal(third.offset, second.offset)
  assert.equal((await handle.head()).offset, second.offset)
})

for (const live of [true, "long-poll", "sse"]) {
  test(`a live reader (${live}) gets each message once while the server ends its connections`, async () => {
    const handle = await DurableStream.create({ url: newUrl("live"), contentType: JSON_TYPE })
    await handle.append("0")
    const got = []
    const reader = await follow(handle.url, { live }, (response) =>
      response.subscribeJson(async (batch) => {
        got.push(...batch.items)
      }),
    )
    const sent = [0]
    for (let number = 1; number <= 15; number++) {
      sent.push(number)
      await handle.append(JSON.stringify(number))
      await pause(200) // longer in all than the server lets a connection live
    }
    await eventually("the messages", () => got, sent)
    await pause(300)
    assert.deepEqual(got, sent)
    reader.stop()
  })
}

for (const live of ["long-poll", "sse"]) {
  test(`a live reader (${live}) ends with the stream`, async () => {
    const handle = await DurableStream.create({ url: newUrl("close"), contentType: JSON_TYPE })
    const response = await stream({ url: handle.url, live })
    const all = (async () => {
      const items = []
      for await (const item of response.jsonStream()) items.push(item)
      return items
    })()
    await handle.append('"one"')
    const { finalOffset } = await handle.close({ body: '"last"' })
    assert.deepEqual(await within("the end", all), ["one", "last"])
    assert.equal(response.offset, finalOffset)
    assert.equal(response.streamClosed, true)
  })
}

test("large and unusual values come through an event stream as they were", async () => {
  const long = "line\r\nnext\rlast\n" + "äöü😀 ".repeat(30_000) + "\n\n data: no\nevent: no\n"

  const text = await DurableStream.create({ url: newUrl("long-text"), contentType: TEXT_TYPE })
  let gotText = ""
  const textReader = await follow(text.url, { live: "sse" }, (response) =>
    response.subscribeText(async (chunk) => {
      gotText += chunk.text
    }),
  )
  await pause(300)
  await text.append(long)
  await text.append("end")
  // An event stream knows one line end only, so CR and CRLF come as LF.
  await eventually("the text", () => digest(gotText), digest(long.replace(/\r\n?/g, "\n") + "end"))
  textReader.stop()

  const value = { text: long, list: [1, [2, ["😀"]]] }
  const json = await DurableStream.create({ url: newUrl("long-json"), contentType: JSON_TYPE })
  const gotItems = []
  const jsonReader = await follow(json.url, { live: "sse" }, (response) =>
    response.subscribeJson(async (batch) => {
      gotItems.push(...batch.items)
    }),
  )
  await pause(300)
  await json.append(JSON.stringify(value))
  await json.append(JSON.stringify(["kept as an array"]))
  await json.append(JSON.stringify({ b: 2 }, null, 2))
  const expected = [value, ["kept as an array"], { b: 2 }]
  await eventually("the items", () => digest(JSON.stringify(gotItems)), digest(JSON.stringify(expected)))
  jsonReader.stop()

  const content = new Uint8Array(300_001).map((_, index) => (index * 7919) % 256)
  const bytes = await DurableStream.create({ url: newUrl("long-bytes"), contentType: "application/octet-stream" })
  const parts = []
  const bytesReader = await follow(bytes.url, { live: "sse" }, (response) =>
    response.subscribeBytes(async (chunk) => {
      parts.push(chunk.data)
    }),
  )
  await pause(300)
  await bytes.append(content)
  await bytes.append(new Uint8Array([1]))
  await eventually("the bytes", () => digest(Buffer.concat(parts)), digest(Buffer.concat([content, new Uint8Array([1])])))
  bytesReader.stop()
})

test("a character that two appends share is whole for a live reader", async () => {
  const handle = await DurableStream.create({ url: newUrl("split"), contentType: TEXT_TYPE })
  let got = ""
  const reader = await follow(handle.url, { live: "sse" }, (response) =>
    response.subscribeText(async (chunk) => {
      got += chunk.text
    }),
  )
  await pause(300)
  await handle.append(new Uint8Array([0x61, 0xf0, 0x9f]))
  await pause(300)
  await handle.append(new Uint8Array([0x98, 0x80, 0x62]))
  await eventually("the text", () => got, "a😀b")
  reader.stop()
})

test("a producer's batches land once and in order, though each is sent twice", async () => {
  const handle = await DurableStream.create({ url: newUrl("producer"), contentType: JSON_TYPE })
  const twice = async (input, init) => {
    if (init?.method === "POST") await (await fetch(input, init)).arrayBuffer()
    return fetch(input, init)
  }
  const errors = []
  const onError = (error) => errors.push(error.name)
  const producer = new IdempotentProducer(handle, "writer", { fetch: twice, maxBatchBytes: 200, lingerMs: 0, onError })
  for (let number = 0; number < 200; number++) producer.append(JSON.stringify(number))
  await within("the flush", producer.flush())
  const items = await (await stream({ url: handle.url, live: false })).json()
  assert.deepEqual(items, [...Array(200).keys()])

  assert.deepEqual(errors, [])

  const later = new IdempotentProducer(handle, "writer", { epoch: 1, onError })
  later.append('"later"')
  await later.flush()
  producer.append('"shut out"')
  await producer.flush().catch(onError)
  assert.deepEqual(new Set(errors), new Set(["StaleEpochError"]))
  const all = await (await stream({ url: handle.url, live: false })).json()
  assert.deepEqual(all.slice(200), ["later"])
})

test("what is refused is an error that says why", async () => {
  const missing = new DurableStream({ url: newUrl("missing") })
  await assert.rejects(missing.stream({ live: false }), (error) => error.status === 404 || error.code === "NOT_FOUND")

  const handle = await DurableStream.create({ url: newUrl("refusals"), contentType: JSON_TYPE })
  await handle.append("1", { seq: "b" })
  await assert.rejects(handle.append("2", { seq: "a" }), (error) => {
    assert.equal(error.status, 409)
    assert.match(error.message, /sequence conflict/i) // the words by which clients tell it from other conflicts
    return true
  })
  await assert.rejects(stream({ url: handle.url, live: false, offset: "nonsense" }), (error) => {
    assert.ok(error instanceof FetchError)
    assert.equal(error.status, 400)
    assert.match(error.json.error.message, /offset/)
    return true
  })
  const { finalOffset } = await handle.close()
  for (const refused of [() => handle.append("3"), () => handle.close({ body: "3" })]) {
    await assert.rejects(refused(), (error) => {
      assert.equal(error.status, 409)
      assert.equal(error.headers["stream-closed"], "true")
      assert.equal(error.headers["stream-next-offset"], finalOffset)
      return true
    })
  }
  await handle.delete()
  assert.deepEqual(await handle.head(), { exists: false })
})

test("an offset of a deleted stream is no place in the next one of that name", async () => {
  const url = newUrl("incarnations")
  const first = await DurableStream.create({ url, contentType: TEXT_TYPE, body: "first incarnation" })
  const { offset } = await first.head()
  await first.delete()
  const second = await DurableStream.create({ url, contentType: TEXT_TYPE, body: "of as many" })
  await second.append(" bytes, and more")
  for (const live of [false, "long-poll", "sse"]) {
    await assert.rejects(
      (async () => (await stream({ url, live, offset })).text())(),
      (error) => error.status === 410 || error.status === 404 || error.status === 400,
      `live: ${live}`,
    )
  }
})
