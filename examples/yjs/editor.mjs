// Opens a document, adds a line if there is one, and prints all lines, now and whenever another editor adds one.
//
//   node editor.mjs http://127.0.0.1:4438 DOCUMENT [LINE]
import { YjsProvider } from "@durable-streams/y-durable-streams"
import * as Y from "yjs"

const [url, docId, line] = process.argv.slice(2)
const doc = new Y.Doc()
const lines = doc.getArray("lines")
const provider = new YjsProvider({ doc, docId, baseUrl: `${url}/v1/yjs/example` })

await new Promise((resolve) => provider.on("synced", (isSynced) => isSynced && resolve()))
console.log(JSON.stringify(lines.toArray()))
lines.observe(() => console.log(JSON.stringify(lines.toArray())))
if (line) lines.push([line])
