// Writes a text to a stream, token by token, as a language model would. Stop it at any moment, even with
// kill -9, and start it again: it continues after the last token in the stream, and writes no token twice. If the
// stream is complete already, it says so and ends.
//
//   node writer.mjs http://127.0.0.1:4437/v1/stream/answers/1 [milliseconds between tokens]
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"
import { randomUUID } from "node:crypto"

const url = process.argv[2]
const pauseMs = Number(process.argv[3] ?? 40)
if (!url) {
  console.error("usage: node writer.mjs STREAM_URL [MILLISECONDS_BETWEEN_TOKENS]")
  process.exit(2)
}

const tokens = (
  "A stream is a promise kept in order . What has been written stays written ; who has read this far goes on " +
  "from here ; and whoever was cut off comes back to the very place where the line went dead . "
)
  .repeat(3)
  .trim()
  .split(" ")

// A closed stream accepts no appends: the run that closed it has written all tokens.
if (await isClosed()) {
  console.log("is complete")
  process.exit(0)
}
// Creating an existing stream with the same content type changes nothing.
const handle = await DurableStream.create({ url, contentType: "application/json" })
// Each run is a new epoch of one producer, which fences requests of an earlier run that are still under way. (The
// client's autoClaim would begin at epoch 0 each time, which the server takes for a retry of the first run.)
const producer = new IdempotentProducer(handle, "writer", {
  epoch: Date.now(),
  onError: (error) => {
    console.error(`cannot write: ${error.message}`)
    process.exit(1)
  },
})

// After this message the appends of earlier runs are rejected, so all that they wrote is before it.
const run = randomUUID()
producer.append(JSON.stringify({ run }))
await producer.flush()
const written = await (await stream({ url, live: false })).json()
const before = written.slice(0, written.findIndex((message) => message.run === run))
const next = before.filter((message) => "token" in message).length
console.log(next === 0 ? "begins" : `goes on at token ${next}`)

for (let index = next; index < tokens.length; index++) {
  producer.append(JSON.stringify({ index, token: tokens[index] }))
  await new Promise((resolve) => setTimeout(resolve, pauseMs))
}
await producer.close(JSON.stringify({ end: true }))
console.log(`wrote ${tokens.length} tokens`)

async function isClosed() {
  try {
    return (await DurableStream.head({ url })).streamClosed
  } catch (error) {
    if (error.status === 404) return false // there is no stream yet
    throw error
  }
}
