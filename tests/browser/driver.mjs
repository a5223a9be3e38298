// One Chromium for all tests, told what to do in lines of JSON: {"id", "page", "verb", …} is answered by {"id", "value"}
// or {"id", "error"}. It ends with its standard input.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import * as verbs from "./verbs.mjs";
import { Watched } from "./watched.mjs";

const [executablePath] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  timeout: 60_000,
  // There is no bus here, and asking for one takes time.
  env: { ...process.env, DBUS_SESSION_BUS_ADDRESS: "disabled:", DBUS_SYSTEM_BUS_ADDRESS: "disabled:" },
  args: [
    // Only this machine has an address.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--autoplay-policy=no-user-gesture-required",
  ],
});
const pages = new Map();

async function carryOut({ page: number, verb, ...how }) {
  if (verb === "open") {
    pages.set(number, await Watched.open(browser, how));
    return null;
  }
  const watched = pages.get(number);
  if (verb === "close") {
    pages.delete(number);
    return watched.close();
  }
  const known = verbs[verb];
  if (!known) throw new Error(`there is no verb ${verb}`);
  return known(watched.page, how, watched);
}

function answer(line) {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

// Whoever asked is gone.
process.stdout.on("error", () => process.exit(0));

for await (const line of createInterface({ input: process.stdin })) {
  const { id, ...order } = JSON.parse(line);
  carryOut(order).then(
    (value) => answer({ id, value: value ?? null }),
    (error) => answer({ id, error: `${error.message ?? error}` }),
  );
}
await browser.close();
process.exit(0);
