// @ts-check
// Requests to this server: public HTTP routes alone. The token goes in the Authorization field and nowhere else.
import { identity } from "./session.js"

/** The page's own folder is the server's root, also behind a proxy that adds a prefix. */
export const ROOT = new URL("../", import.meta.url)

/** A name of a stream is spelt as in its path. @param {string} name */
export const streamUrl = (name) => new URL(`v1/stream/${name}`, ROOT)

/** The server's answer to a request that it refuses. */
export class Refused extends Error {
  /** @param {number} status @param {string} code @param {string} message */
  constructor(status, code, message) {
    super(message)
    this.status = status
    this.code = code
  }
}

/** There was no answer. */
export class Unreachable extends Error {}

/** The answer is not one that this server gives. */
export class NotOurServer extends Error {}

/**
 * @param {URL | string} url
 * @param {RequestInit & {token?: string | null}} [options]
 */
export async function request(url, { token = identity()?.token ?? null, ...options } = {}) {
  const headers = new Headers(options.headers)
  if (token) headers.set("Authorization", `Bearer ${token}`)
  let response
  try {
    response = await fetch(new URL(url, ROOT), { ...options, headers, cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer" })
  } catch (error) {
    if (options.signal?.aborted) throw error
    throw new Unreachable("The server does not answer.")
  }
  if (!response.ok) throw await refusal(response)
  return response
}

/** @param {Response} response */
async function refusal(response) {
  const text = await response.text().catch(() => "")
  try {
    const { error } = JSON.parse(text)
    return new Refused(response.status, String(error.code), String(error.message))
  } catch {
    return new Refused(response.status, "unknown", response.status === 409 || response.status < 500 ? `The server answered ${response.status}.` : "The server has a problem of its own.")
  }
}

/** @param {URL | string} url @param {RequestInit & {token?: string | null}} [options] @returns {Promise<any>} */
export async function requestJson(url, options) {
  const response = await request(url, options)
  try {
    return await response.json()
  } catch {
    throw new NotOurServer("The answer is not that of a Fluvial server.")
  }
}

/** @param {string} method @param {unknown} body @returns {RequestInit} */
export const withJson = (method, body) => ({ method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })

/** Whether the server lets everybody in; checks that it is one of ours. */
export async function probe() {
  const health = await requestJson("health", { token: null })
  if (typeof health?.status !== "string" || !("liveReads" in health)) throw new NotOurServer("The answer is not that of a Fluvial server.")
  try {
    await request("v1/streams?limit=1", { token: null })
    return { isOpen: true }
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) return { isOpen: false }
    throw error
  }
}

/** A text for any error of this module. @param {unknown} error */
export const explain = (error) => (error instanceof Error ? error.message : String(error))
