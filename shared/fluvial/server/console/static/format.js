// @ts-check
// Numbers and times for people.

const UNITS = ["B", "kB", "MB", "GB", "TB"]

/** @param {number | null | undefined} bytes */
export function size(bytes) {
  if (bytes === null || bytes === undefined) return "–"
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1_000
    unit++
  }
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`
}

/** @param {number} value */
export const count = (value) => value.toLocaleString("en")

/** @param {number} value @param {string} one @param {string} [many] */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`

const STEPS = /** @type {const} */ ([
  [60, "s"],
  [3_600, "min"],
  [86_400, "h"],
  [86_400 * 365, "d"],
])

/** How long ago, or in how long. @param {string | null | undefined} moment */
export function relative(moment, nowMs = Date.now()) {
  if (!moment) return "–"
  const seconds = (nowMs - Date.parse(moment)) / 1_000
  const span = Math.abs(seconds)
  if (span < 2) return "now"
  let before = 1
  for (const [limit, unit] of STEPS) {
    if (span < limit) return seconds > 0 ? `${Math.floor(span / before)} ${unit} ago` : `in ${Math.round(span / before)} ${unit}`
    before = limit
  }
  return seconds > 0 ? `${Math.floor(span / before)} y ago` : `in ${Math.round(span / before)} y`
}

/** @param {string | null | undefined} moment */
export function absolute(moment) {
  return moment ? new Date(moment).toLocaleString() : "–"
}
