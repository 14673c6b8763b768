// @ts-check
// What to paste elsewhere to do the same: curl, the official TypeScript client, the official Python client.
// A token is never part of it: it is read from FLUVIAL_TOKEN where the snippet runs.

/** @param {string} text for a POSIX shell */
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`

/** JSON's strings are strings of JavaScript and of Python, too. @param {string} text */
const quoted = (text) => JSON.stringify(text)

/**
 * @typedef {{url: string, contentType: string, needsToken: boolean, offset: string, body: string}} Wanted
 * @typedef {"read" | "follow" | "append"} Action
 * @typedef {"curl" | "TypeScript" | "Python"} Language
 */

export const ACTIONS = /** @type {Action[]} */ (["read", "follow", "append"])
export const LANGUAGES = /** @type {Language[]} */ (["curl", "TypeScript", "Python"])

/** @param {Wanted} wanted @param {Action} action @param {Language} language */
export function snippet(wanted, action, language) {
  return { curl, TypeScript: typescript, Python: python }[language](wanted, action)
}

const isJson = (/** @type {string} */ type) => type.split(";")[0].trim().toLowerCase() === "application/json"

/** @param {Wanted} wanted @param {Action} action */
function curl({ url, contentType, needsToken, offset, body }, action) {
  const token = needsToken ? ` \\\n  -H "Authorization: Bearer $FLUVIAL_TOKEN"` : ""
  if (action === "append") return `curl --fail-with-body -X POST ${shell(url)}${token} \\\n  -H ${shell(`Content-Type: ${contentType}`)} \\\n  --data-binary ${shell(body)}`
  const query = new URLSearchParams({ offset, ...(action === "follow" ? { live: "sse" } : {}) })
  return `curl --fail-with-body ${action === "follow" ? "-N " : ""}${shell(`${url}?${query}`)}${token}`
}

/** @param {Wanted} wanted @param {Action} action */
function typescript({ url, contentType, needsToken, offset, body }, action) {
  const headers = needsToken ? "\n  headers: { Authorization: `Bearer ${process.env.FLUVIAL_TOKEN}` }," : ""
  if (action === "append") {
    return `import { DurableStream } from "@durable-streams/client"

const handle = new DurableStream({
  url: ${quoted(url)},
  contentType: ${quoted(contentType)},${headers}
})
await handle.append(${quoted(body)})`
  }
  const subscribe = isJson(contentType)
    ? "response.subscribeJson((batch) => {\n  for (const message of batch.items) console.log(message)\n})"
    : "response.subscribeText((chunk) => {\n  process.stdout.write(chunk.text)\n})"
  const all = isJson(contentType) ? "console.log(await response.json())" : "console.log(await response.text())"
  return `import { stream } from "@durable-streams/client"

const response = await stream({
  url: ${quoted(url)},
  offset: ${quoted(offset)},
  live: ${action === "follow"},${headers}
})
${action === "follow" ? subscribe : all}`
}

/** @param {Wanted} wanted @param {Action} action */
function python({ url, contentType, needsToken, offset, body }, action) {
  const imports = needsToken ? "import os\n\n" : ""
  const headers = needsToken ? '\n    headers={"Authorization": f"Bearer {os.environ[\'FLUVIAL_TOKEN\']}"},' : ""
  if (action === "append") {
    return `${imports}from durable_streams import DurableStream

handle = DurableStream(
    ${quoted(url)},
    content_type=${quoted(contentType)},${headers}
)
handle.append(${isJson(contentType) ? `json.loads(${quoted(body)})` : quoted(body)})`.replace(/^(?=[^]*json\.loads)/, needsToken ? "import json\n" : "import json\n\n")
  }
  const loop = isJson(contentType) ? "for message in response.iter_json():\n        print(message)" : 'for text in response.iter_text():\n        print(text, end="", flush=True)'
  return `${imports}from durable_streams import stream

with stream(
    ${quoted(url)},
    offset=${quoted(offset)},
    live=${action === "follow" ? "True" : "False"},${headers}
) as response:
    ${loop}`
}
