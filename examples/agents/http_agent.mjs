// An agent that Flowledger calls over HTTP; needs nothing but Node.js 18 or newer.
//
//     node http_agent.mjs [PORT]
//
// It counts the words of the text that it is sent. The answer to a task is kept by its key, so that
// a call which is made again does nothing twice.

import { createServer } from "node:http";

const BODY_BYTES_MAX = 1_000_000;
const done = new Map(); // work that has effects keeps this in its database, beside the effect

function count(text) {
  const words = text.split(/\s+/).filter(Boolean);
  const longest = words.reduce((best, word) => (word.length > best.length ? word : best), "");
  return { words: words.length, longest };
}

function reply(call, key) {
  const text = call.params.message.parts[0].text;
  if (!text.trim()) {
    const error = { code: -32602, message: "there is no text to count" };
    return { jsonrpc: "2.0", id: call.id, error };
  }
  if (!done.has(key)) done.set(key, { kind: "data", data: count(text) });
  const result = { status: { state: "completed" }, artifacts: [{ parts: [done.get(key)] }] };
  return { jsonrpc: "2.0", id: call.id, result };
}

const server = createServer((request, response) => {
  const answer = (status, body) => {
    response.writeHead(status, { "Content-Type": "application/json" });
    response.end(JSON.stringify(body));
  };
  if (request.method !== "POST") {
    // /.well-known/agent-card.json, for the health check
    return answer(200, { name: "counter", description: "counts words", version: "1" });
  }
  if (Number(request.headers["content-length"]) > BODY_BYTES_MAX) {
    return answer(413, { error: `at most ${BODY_BYTES_MAX} bytes` });
  }
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    try {
      const call = JSON.parse(Buffer.concat(chunks).toString("utf8"));
      answer(200, reply(call, request.headers["idempotency-key"]));
    } catch (error) {
      answer(400, { error: String(error) });
    }
  });
});
server.listen(Number(process.argv[2] ?? 8700), "127.0.0.1", () => {
  console.log(`The agent listens at http://127.0.0.1:${server.address().port}`);
});
