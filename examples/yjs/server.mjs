// Keeps Yjs documents in streams of Fluvial, and compacts them. It has no state of its own.
//
//   node server.mjs http://127.0.0.1:4437 [port]
import { YjsServer } from "@durable-streams/y-durable-streams/server"

const yjs = new YjsServer({
  dsServerUrl: process.argv[2] ?? "http://127.0.0.1:4437",
  port: Number(process.argv[3] ?? 4438),
})
await yjs.start()
console.log(`documents on ${yjs.url}`)
