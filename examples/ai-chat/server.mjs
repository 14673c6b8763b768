// A chat with the AI SDK. Its answers are streams of Fluvial, so a page that is reloaded reads on where it was.
//
//   node server.mjs http://127.0.0.1:4437 [port]
import { toDurableStreamResponse } from "@durable-streams/aisdk-transport"
import { randomUUID } from "node:crypto"
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import { model } from "./model.mjs"

const fluvial = process.argv[2] ?? "http://127.0.0.1:4437"
const answers = new Map() // the stream of each chat's last answer; an application keeps this in its database

async function respond(method, path, body) {
  if (path === "/") return new Response(await readFile(new URL("index.html", import.meta.url)))
  const chat = /^\/api\/chat\/([\w-]+)$/.exec(path)?.[1]
  if (!chat) return new Response("not found", { status: 404 })
  if (method === "POST") {
    const writeUrl = `${fluvial}/v1/stream/answers/${chat}-${randomUUID()}`
    const response = await toDurableStreamResponse({ source: model(body), stream: { writeUrl } })
    answers.set(chat, writeUrl) // the stream exists now; the model writes on in the background
    return response
  }
  return Response.json({ streamUrl: answers.get(chat) ?? null })
}

const server = createServer(async (request, answer) => {
  const parts = []
  for await (const part of request) parts.push(part)
  const response = await respond(request.method, request.url, Buffer.concat(parts).toString())
  answer.writeHead(response.status, Object.fromEntries(response.headers))
  answer.end(Buffer.from(await response.arrayBuffer()))
})
server.listen(Number(process.argv[3] ?? 3000), "127.0.0.1", () => {
  console.log(`chat on http://localhost:${server.address().port}/`)
})
