import { DurableStream, stream } from "@durable-streams/client"

const url = process.argv[2] ?? "http://localhost:4437/v1/stream/notes/ts"
const notes = await DurableStream.create({ url, contentType: "application/json" })
await notes.append(JSON.stringify({ text: "first" }))

const first = await stream({ url, live: false })
console.log(await first.json()) // [ { text: "first" } ]

await notes.append(JSON.stringify({ text: "second" }))
const rest = await stream({ url, offset: first.offset, live: false }) // resume: only what is new
console.log(await rest.json()) // [ { text: "second" } ]
