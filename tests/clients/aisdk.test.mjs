// @durable-streams/aisdk-transport: chats of the AI SDK whose answers are streams, and outlive a page.
import { createDurableChatTransport, toDurableStreamResponse } from "@durable-streams/aisdk-transport"
import { AbstractChat, createUIMessageStream } from "ai"
import assert from "node:assert/strict"
import { after, before, test } from "node:test"
import { eventually, newUrl, pause, startApp } from "./support.mjs"

const WORDS = ["Streams ", "are ", "kept.\n\n", "So ", "is ", "this: ", "😀", " äöü ", '{"and": "this"}', " end"]
const ANSWER = WORDS.join("")

let app
let streamOf // the stream of each chat's last answer
let pauseMs

before(async () => {
  streamOf = new Map()
  app = await startApp(answer)
})

after(() => app.close())

// What an application's routes do: POST begins an answer, GET says where the answer of a chat is.
async function answer(request) {
  const [, , chatId] = new URL(request.url).pathname.slice(1).split("/")
  if (request.method === "GET") {
    if (!streamOf.has(chatId)) return new Response(null, { status: 204 })
    return Response.json({ streamUrl: streamOf.get(chatId) })
  }
  const { id } = await request.json()
  const writeUrl = newUrl(`chat-${id}`)
  streamOf.set(id, writeUrl)
  const source = createUIMessageStream({
    execute: async ({ writer }) => {
      writer.write({ type: "start", messageId: `answer-${id}` })
      writer.write({ type: "text-start", id: "text" })
      for (const delta of WORDS) {
        writer.write({ type: "text-delta", id: "text", delta })
        await pause(pauseMs)
      }
      writer.write({ type: "text-end", id: "text" })
      writer.write({ type: "finish" })
    },
  })
  return toDurableStreamResponse({ source, stream: { writeUrl } })
}

// The AI SDK's chat, with its state in plain fields instead of a framework's.
class Chat extends AbstractChat {
  constructor(id, messages = []) {
    const state = {
      status: "ready",
      error: undefined,
      messages,
      pushMessage: (message) => (state.messages = [...state.messages, message]),
      popMessage: () => (state.messages = state.messages.slice(0, -1)),
      replaceMessage: (index, message) => (state.messages = state.messages.with(index, message)),
      snapshot: (value) => structuredClone(value),
    }
    super({
      id,
      state,
      transport: createDurableChatTransport({ api: `${app.url}/api/chat` }),
    })
    this.fields = state
  }

  get text() {
    const message = this.fields.messages.find(({ role }) => role === "assistant")
    return message?.parts.map((part) => part.text ?? "").join("") ?? ""
  }
}

test("an answer is read from its stream while it is written", async () => {
  pauseMs = 300 // longer in all than the server lets a connection live
  const chat = new Chat("whole")
  await chat.sendMessage({ text: "Go on" })
  assert.equal(chat.error, undefined)
  assert.equal(chat.text, ANSWER)
  assert.equal(chat.fields.messages.length, 2)
})

test("after a reload in the middle the answer is whole", async () => {
  pauseMs = 200
  const chat = new Chat("reload")
  const sent = chat.sendMessage({ text: "Go on" })
  await eventually("a part of the answer", () => chat.text.length > 5 && chat.text.length < ANSWER.length, true)
  await chat.stop() // the page goes
  await sent
  const question = chat.fields.messages.filter(({ role }) => role === "user")

  const reloaded = new Chat("reload", question)
  await reloaded.resumeStream()
  assert.equal(reloaded.error, undefined)
  assert.equal(reloaded.text, ANSWER)
  assert.deepEqual(
    reloaded.fields.messages.map(({ role }) => role),
    ["user", "assistant"],
  )

  const later = new Chat("reload", question)
  await later.resumeStream()
  assert.equal(later.text, ANSWER)
})

test("a chat without an answer has nothing to resume", async () => {
  const chat = new Chat("nothing")
  await chat.resumeStream()
  assert.equal(chat.error, undefined)
  assert.deepEqual(chat.fields.messages, [])
})

test("in the mode that waits, the stream is closed when the response comes", async () => {
  async function* source() {
    yield { type: "start" }
    yield { type: "finish" }
  }
  const writeUrl = newUrl("awaited")
  const response = await toDurableStreamResponse({ source: source(), stream: { writeUrl }, mode: "await" })
  const { streamUrl, finalOffset } = await response.json()
  assert.equal(streamUrl, writeUrl)
  const head = await fetch(writeUrl, { method: "HEAD" })
  assert.equal(head.headers.get("stream-closed"), "true")
  assert.equal(head.headers.get("stream-next-offset"), finalOffset)
  assert.deepEqual(await (await fetch(writeUrl)).json(), [{ type: "start" }, { type: "finish" }])
})
