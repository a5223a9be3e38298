// A careful receiver in Express: verifies the signature, and answers 200 once the callback is committed and synced.
// Node's SQLite blocks, so every callback is a transaction of its own.
import { createHmac, timingSafeEqual } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import express from "express";

const TOLERANCE_SECONDS = 300;

const database = new DatabaseSync("callbacks.db");
database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
database.exec("CREATE TABLE IF NOT EXISTS callbacks (task_id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID");
const insert = database.prepare("INSERT INTO callbacks (task_id, body) VALUES (?, ?) ON CONFLICT DO NOTHING");

function isGenuine(taskId, headers) {
  const timestamp = headers["x-webhook-timestamp"] ?? "";
  const given = Buffer.from(headers["x-webhook-signature"] ?? "", "base64");
  const expected = createHmac("sha256", process.env.HMAC_KEY).update(`${taskId}.${timestamp}`).digest();
  const age = Math.abs(Date.now() / 1000 - Number(timestamp));
  return age <= TOLERANCE_SECONDS && given.length === expected.length && timingSafeEqual(given, expected);
}

const app = express();
app.use(express.raw({ type: "application/json", limit: "4mb" }));

app.post("/callbacks/kie", (request, response) => {
  const { code, data } = JSON.parse(request.body);
  if (typeof data?.taskId !== "string" || typeof code !== "number") {
    return response.sendStatus(400);
  }
  if (!isGenuine(data.taskId, request.headers)) {
    return response.sendStatus(401);
  }
  insert.run(data.taskId, request.body);
  response.status(200).json({ code: 200, msg: "success" });
});

app.listen(process.env.PORT, "127.0.0.1");
