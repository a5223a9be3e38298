"""A careful receiver in FastAPI: verifies the signature, and answers 200 once the callback is committed and synced.

The handler is async and the database blocks it: in a pool of threads the same commits only wait for one another.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import sqlite3
import time

import uvicorn
from fastapi import FastAPI, HTTPException, Request

KEY = os.environ["HMAC_KEY"].encode()
TOLERANCE_SECONDS = 300

# Without an isolation level every statement commits by itself.
database = sqlite3.connect("callbacks.db", isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = FULL")
database.execute(
    "CREATE TABLE IF NOT EXISTS callbacks (task_id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID"
)
app = FastAPI()


def is_genuine(task_id: str, request: Request) -> bool:
    timestamp = request.headers.get("x-webhook-timestamp", "")
    try:
        given = base64.b64decode(request.headers.get("x-webhook-signature", ""))
        age = abs(time.time() - int(timestamp))
    except (ValueError, binascii.Error):
        return False
    expected = hmac.new(KEY, f"{task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    return age <= TOLERANCE_SECONDS and hmac.compare_digest(given, expected)


@app.post("/callbacks/kie")
async def receive(request: Request) -> dict:
    body = await request.body()
    try:
        callback = json.loads(body)
        task_id, _ = str(callback["data"]["taskId"]), int(callback["code"])
    except (ValueError, KeyError, TypeError):
        raise HTTPException(400)
    if not is_genuine(task_id, request):
        raise HTTPException(401)
    database.execute(
        "INSERT INTO callbacks (task_id, body) VALUES (?, ?) ON CONFLICT DO NOTHING", (task_id, body)
    )
    return {"code": 200, "msg": "success"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), access_log=False)
