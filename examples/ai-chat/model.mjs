// A stand-in for a language model that needs no account. With a real one the function's body is
//
//   return streamText({ model: openai("…"), prompt }).toUIMessageStream()
import { createUIMessageStream } from "ai"

const ANSWER = "A stream is kept in order, and a reader goes on where it stopped. ".repeat(6).trim()

export function model(prompt) {
  return createUIMessageStream({
    execute: async ({ writer }) => {
      writer.write({ type: "start" })
      writer.write({ type: "text-start", id: "text" })
      for (const delta of `You said: ${prompt}. ${ANSWER}`.split(/(?<= )/)) {
        writer.write({ type: "text-delta", id: "text", delta })
        await new Promise((resolve) => setTimeout(resolve, 30))
      }
      writer.write({ type: "text-end", id: "text" })
      writer.write({ type: "finish" })
    },
  })
}
