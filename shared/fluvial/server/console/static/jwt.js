// @ts-check
// Mints tokens in the browser: JSON Web Tokens with HS256, and the claims that `fluvial token mint` writes.

const text = new TextEncoder()

/** Whether this page may sign: browsers allow it on https: and on localhost alone. */
export const canSign = () => globalThis.crypto?.subtle !== undefined

/** @param {Uint8Array} bytes */
const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")

/** @param {string} secret @param {{sub: string, scope: string, exp: number, iat: number, stream?: string}} claims */
export async function mint(secret, claims) {
  const key = await crypto.subtle.importKey("raw", text.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"])
  const signed = [{ alg: "HS256", typ: "JWT" }, claims].map((part) => base64url(text.encode(JSON.stringify(part)))).join(".")
  const signature = await crypto.subtle.sign("HMAC", key, text.encode(signed))
  return `${signed}.${base64url(new Uint8Array(signature))}`
}

/** A secret of 256 random bits. */
export const newSecret = () => base64url(crypto.getRandomValues(new Uint8Array(32)))
