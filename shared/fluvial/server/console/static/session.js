// @ts-check
// The tokens that were pasted or made. They are kept in sessionStorage alone, so they end with the browser's tab.

const KEY = "fluvial.tokens"

/**
 * @typedef {{sub: string, scope: string, exp: number, stream?: string}} Claims
 * @typedef {{token: string, claims: Claims | null}} Identity
 */

/** @returns {{tokens: string[], current: number}} */
function load() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY) ?? "")
    if (Array.isArray(found.tokens) && found.tokens.every((/** @type {unknown} */ one) => typeof one === "string")) return found
  } catch {
    // nothing there yet
  }
  return { tokens: [], current: -1 }
}

/** The claims of a token, without verification; null for other text. @param {string} token @returns {Claims | null} */
export function claimsOf(token) {
  try {
    const bytes = Uint8Array.from(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0))
    const claims = JSON.parse(new TextDecoder().decode(bytes))
    return typeof claims.sub === "string" && typeof claims.scope === "string" ? claims : null
  } catch {
    return null
  }
}

/** @returns {Identity[]} */
export const identities = () => load().tokens.map((token) => ({ token, claims: claimsOf(token) }))

/** @returns {Identity | null} */
export function identity() {
  const { tokens, current } = load()
  const token = tokens[current]
  return token === undefined ? null : { token, claims: claimsOf(token) }
}

/** Add a token, and use it. @param {string} token */
export function signIn(token) {
  const { tokens } = load()
  const others = tokens.filter((one) => one !== token)
  store([...others, token].slice(-8), Math.min(others.length, 7))
}

/** @param {number} index */
export const choose = (index) => store(load().tokens, index)

/** Forget the token in use, and use none. */
export function signOut() {
  const { tokens, current } = load()
  store(tokens.filter((_, index) => index !== current), -1)
}

/** @param {string[]} tokens @param {number} current */
function store(tokens, current) {
  sessionStorage.setItem(KEY, JSON.stringify({ tokens, current }))
  changes.dispatchEvent(new Event("change"))
}

export const changes = new EventTarget()

/** @param {Identity} one */
export function describeIdentity({ claims }) {
  if (!claims) return "a token of unknown kind"
  const who = claims.sub === "*" ? "operator" : `${claims.sub} · ${claims.scope}`
  return claims.stream ? `${who} · ${claims.stream}` : who
}

/** @param {Identity | null} one */
export const isOperator = (one) => one?.claims?.sub === "*"

/** @param {Identity | null} one */
export const isExpired = (one) => one?.claims != null && one.claims.exp * 1_000 <= Date.now()
