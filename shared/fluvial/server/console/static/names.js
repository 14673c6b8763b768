// @ts-check
// Names of streams: percent-encoded as in their paths, and decoded for people.

/** A name for people. @param {string} name */
export function decodeName(name) {
  return name.split("/").map(decodeSegment).join("/")
}

/** @param {string} segment */
export function decodeSegment(segment) {
  try {
    return decodeURIComponent(segment)
  } catch {
    return segment
  }
}

/** The name that a person has typed, percent-encoded; an error for one that no URL can have. @param {string} text */
export function encodeName(text) {
  const segments = text.trim().replace(/^\/+/, "").split("/")
  for (const segment of segments) {
    if (segment === "") throw new Error("A name needs a text between two slashes, and at its end.")
    if (segment === "." || segment === "..") throw new Error("A part of a name cannot be . or ..")
  }
  return segments.map(encodeURIComponent).join("/")
}
