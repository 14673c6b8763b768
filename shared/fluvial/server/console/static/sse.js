// @ts-check
// Parses server-sent events as they come: https://html.spec.whatwg.org/#event-stream-interpretation

/** @typedef {{type: string, data: string}} StreamEvent */

/** Events of a body, each as soon as it is whole. @param {ReadableStream<Uint8Array>} body */
export async function* events(body) {
  const reader = body.pipeThrough(/** @type {any} */ (new TextDecoderStream())).getReader()
  const parser = new Parser()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      yield* parser.feed(value)
    }
  } finally {
    await reader.cancel().catch(() => {})
  }
}

export class Parser {
  #rest = ""
  #type = ""
  /** @type {string[]} */
  #data = []

  /** @param {string} text @returns {StreamEvent[]} the events that are whole now */
  feed(text) {
    const found = []
    const lines = (this.#rest + text).split("\n")
    this.#rest = lines.pop() ?? ""
    for (const line of lines) {
      const event = this.#line(line)
      if (event) found.push(event)
    }
    return found
  }

  /** @param {string} line @returns {StreamEvent | null} */
  #line(line) {
    if (line === "") {
      const event = this.#data.length ? { type: this.#type || "message", data: this.#data.join("\n") } : null
      this.#type = ""
      this.#data = []
      return event
    }
    const colon = line.indexOf(":")
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)
    if (name === "event") this.#type = value
    else if (name === "data") this.#data.push(value)
    return null
  }
}
