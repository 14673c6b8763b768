// The reference server, in memory or, with a folder, file-backed. Prints its URL once it is up.
import { DurableStreamTestServer } from "@durable-streams/server"

const [port, dataDir] = process.argv.slice(2)
const server = new DurableStreamTestServer({ port: Number(port), host: "127.0.0.1", webhooks: true, ...(dataDir ? { dataDir } : {}) })
await server.start()
console.log(`serves ${server.url}/v1/stream/`)
