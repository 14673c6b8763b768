// @durable-streams/tanstack-ai-transport: chats of TanStack AI, each of which is one stream.
import {
  durableStreamConnection,
  ensureDurableChatSessionStream,
  materializeSnapshotFromDurableStream,
  toDurableChatSessionResponse,
  toDurableStreamResponse,
} from "@durable-streams/tanstack-ai-transport"
import { ChatClient } from "@tanstack/ai-client"
import assert from "node:assert/strict"
import { randomUUID } from "node:crypto"
import { after, before, beforeEach, test } from "node:test"
import { eventually, newUrl, pause, startApp, within } from "./support.mjs"

const WORDS = ["Streams ", "are ", "kept.\n\n", "So ", "is ", "this: ", "😀", " äöü ", '{"and": "this"}', " end"]
const ANSWER = WORDS.join("")

let app
let session
let pauseMs

before(async () => {
  app = await startApp(answer)
})

after(() => app.close())

beforeEach(async () => {
  pauseMs = 50
  session = newUrl("session")
  await ensureDurableChatSessionStream({ writeUrl: session })
})

// What an application's route does: it adds the question and the answer to the stream of the session.
async function answer(request) {
  const { messages } = await request.json()
  return toDurableChatSessionResponse({
    stream: { writeUrl: session },
    newMessages: [messages.at(-1)],
    responseStream: chunks(),
  })
}

async function* chunks() {
  const common = { threadId: "thread", runId: randomUUID(), timestamp: 0 }
  const messageId = randomUUID()
  yield { type: "RUN_STARTED", ...common }
  yield { type: "TEXT_MESSAGE_START", messageId, role: "assistant", ...common }
  for (const delta of WORDS) {
    yield { type: "TEXT_MESSAGE_CONTENT", messageId, delta, ...common }
    await pause(pauseMs)
  }
  yield { type: "TEXT_MESSAGE_END", messageId, ...common }
  yield { type: "RUN_FINISHED", finishReason: "stop", ...common }
}

const connection = (options = {}) =>
  durableStreamConnection({ sendUrl: `${app.url}/api/chat`, readUrl: session, ...options })

const texts = (messages) =>
  messages.map(({ role, parts }) => [role, parts.map((part) => part.content ?? part.text ?? "").join("")])

function openChat() {
  const errors = []
  const client = new ChatClient({ connection: connection(), onError: (error) => errors.push(error.message) })
  client.subscribe()
  return { client, errors, texts: () => texts(client.getMessages()), close: () => client.unsubscribe() }
}

const CONVERSATION = [
  ["user", "Go on"],
  ["assistant", ANSWER],
]

test("who asks and who looks on see the same conversation", async () => {
  pauseMs = 300 // longer in all than the server lets a connection live
  const asking = openChat()
  const looking = openChat()
  await pause(300)
  await within("sending", asking.client.sendMessage("Go on"))
  await eventually("the one that looks on", looking.texts, CONVERSATION)
  await eventually("the one that asks", asking.texts, CONVERSATION)
  assert.deepEqual([...asking.errors, ...looking.errors], [])
  asking.close()
  looking.close()
})

test("after a reload in the middle the conversation is whole", async () => {
  pauseMs = 200
  const before = openChat()
  void before.client.sendMessage("Go on")
  const isHalfWay = () => {
    const length = before.texts().find(([role]) => role === "assistant")?.[1].length ?? 0
    return length > 5 && length < ANSWER.length
  }
  await eventually("a part of the answer", isHalfWay, true)
  before.close() // the page goes

  const reloaded = openChat()
  await eventually("the reloaded page", reloaded.texts, CONVERSATION)
  assert.deepEqual(reloaded.errors, [])
  reloaded.close()
})

test("a page that was made with the conversation so far goes on after it", async () => {
  pauseMs = 1
  const first = openChat()
  await within("sending", first.client.sendMessage("Go on"))
  await eventually("the first", first.texts, CONVERSATION)
  first.close()
  const { messages, offset } = await materializeSnapshotFromDurableStream({ readUrl: session })
  assert.deepEqual(texts(messages), CONVERSATION)

  const stopped = new AbortController()
  const seen = []
  const following = (async () => {
    for await (const chunk of connection({ initialOffset: offset }).subscribe(stopped.signal)) seen.push(chunk)
  })().catch((error) => (stopped.signal.aborted ? undefined : Promise.reject(error)))
  await pause(300)
  const next = { id: randomUUID(), role: "user", parts: [{ type: "text", content: "More" }] }
  await connection().send([next])
  await eventually("the end of the run", () => seen.at(-1)?.type, "RUN_FINISHED")
  assert.equal(seen.filter(({ type }) => type === "RUN_STARTED").length, 1)
  const { messages: all } = await materializeSnapshotFromDurableStream({ readUrl: session })
  assert.deepEqual(texts(all), [...CONVERSATION, ["user", "More"], ["assistant", ANSWER]])
  stopped.abort()
  await within("the end", following)
})

test("one run in one stream is closed at its end", async () => {
  const writeUrl = newUrl("run")
  const response = await toDurableStreamResponse(chunks(), { stream: { writeUrl }, mode: "await" })
  const { finalOffset } = await response.json()
  const head = await fetch(writeUrl, { method: "HEAD" })
  assert.equal(head.headers.get("stream-closed"), "true")
  assert.equal(head.headers.get("stream-next-offset"), finalOffset)
  const types = (await (await fetch(writeUrl)).json()).map(({ type }) => type)
  assert.deepEqual([types[0], types.at(-1), types.length], ["RUN_STARTED", "RUN_FINISHED", WORDS.length + 4])
})
