// Runs the public suite against the server at FLUVIAL_URL. Its own CLI finds no tests below node_modules.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"
import { describe } from "vitest"

describe(`fluvial at ${process.env.FLUVIAL_URL}`, () => {
  runConformanceTests({
    baseUrl: process.env.FLUVIAL_URL,
    longPollTimeoutMs: Number(process.env.FLUVIAL_LONG_POLL_TIMEOUT) * 1000,
    subscriptions: false,
  })
})
