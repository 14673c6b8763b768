// Receives the webhooks of subscriptions, verifies them, and prints the new messages of the streams.
//
//     FLUVIAL_URL=http://127.0.0.1:4437 PORT=8000 node receiver.mjs

import { createPublicKey, verify } from "node:crypto";
import { createServer } from "node:http";

const STREAMS = `${process.env.FLUVIAL_URL ?? "http://127.0.0.1:4437"}/v1/stream`;
const BODY_BYTES_MAX = 1_000_000;
const TOLERANCE_S = 300;
const KEPT_MS = 300_000;
const FETCH_AGAIN_MS = 10_000;

let keys = new Map();
let fetchedAt = -Infinity;

/** The server's public key with an id. Anybody can name a key, so an unknown one is not looked for each time. */
async function findKey(kid) {
  const age = performance.now() - fetchedAt;
  if (age > KEPT_MS || (!keys.has(kid) && age > FETCH_AGAIN_MS)) {
    const response = await fetch(`${STREAMS}/__ds/jwks.json`, { redirect: "error" });
    if (!response.ok) throw new Error(`the keys are not there: ${response.status}`);
    const set = await response.json();
    keys = new Map(set.keys.map((jwk) => [jwk.kid, createPublicKey({ key: jwk, format: "jwk" })]));
    fetchedAt = performance.now();
  }
  return keys.get(kid);
}

/** Whether the server has signed these bytes a short time ago. */
async function isSigned(body, signature) {
  const parts = /^t=(\d{1,12}),kid=([^,]{1,256}),ed25519=([\w-]{86})$/.exec(signature ?? "");
  if (!parts) return false;
  const [, time, kid, bytes] = parts;
  if (Math.abs(Date.now() / 1000 - Number(time)) > TOLERANCE_S) return false;
  const key = await findKey(kid);
  return key !== undefined && verify(null, Buffer.concat([Buffer.from(`${time}.`), body]), key, Buffer.from(bytes, "base64url"));
}

/** Process a wake. Any status but 2xx makes the server send it again. */
async function receive(request) {
  const parts = [];
  let byteCount = 0;
  for await (const part of request) {
    byteCount += part.length;
    if (byteCount > BODY_BYTES_MAX) return [413];
    parts.push(part);
  }
  const body = Buffer.concat(parts); // the bytes as they came: JSON that is written anew has another signature
  if (!(await isSigned(body, request.headers["webhook-signature"]))) return [401];
  const wake = JSON.parse(body);
  for (const { path, acked_offset } of wake.streams) {
    const page = await fetch(`${STREAMS}/${path}?offset=${acked_offset}`);
    if (!page.ok) return [503];
    console.log(path, await page.text());
  }
  return [200, JSON.stringify({ done: true })]; // acks the tails that the wake had
}

const server = createServer((request, response) => {
  receive(request).then(
    ([status, answer]) => response.writeHead(status, { "content-type": "application/json" }).end(answer),
    (error) => {
      console.error(error.message);
      response.writeHead(503).end();
    },
  );
});
server.listen(Number(process.env.PORT ?? 8000), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
