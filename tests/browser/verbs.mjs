// What a test may have a page do or say. Each takes the page, what the test gave, and what was seen of the page so far.
import { PATIENCE } from "./watched.mjs";

export { audit, contrast } from "./audits.mjs";
export { firstLoad } from "./first_load.mjs";
export { outline, walk } from "./keyboard.mjs";

// Goes somewhere; gives the status.
export async function visit(page, { path }) {
  const response = await page.goto(path, { waitUntil: "load" });
  return response.status();
}

export async function reload(page) {
  await page.reload({ waitUntil: "load" });
}

// Clicks what has this role and name, as those hear it who do not see it.
export async function click(page, { role, name }) {
  await named(page, role, name).click();
}

export async function clickAt(page, { selector }) {
  await page.locator(selector).first().click();
}

export async function fill(page, { label, text }) {
  await page.getByLabel(label, { exact: false }).first().fill(text);
}

export async function choose(page, { label, option }) {
  await page.getByLabel(label, { exact: false }).first().selectOption(option);
}

export async function press(page, { key }) {
  await page.keyboard.press(key);
}

// Waits until the text is to be seen.
export async function see(page, { text }) {
  await page.getByText(text).filter({ visible: true }).first().waitFor();
}

// Waits until there is such an element to be seen.
export async function seeAt(page, { selector }) {
  await page.locator(selector).filter({ visible: true }).first().waitFor();
}

// Waits until there is none any more.
export async function seeNone(page, { selector }) {
  await page.locator(selector).first().waitFor({ state: "detached" });
}

export async function text(page) {
  return page.locator("body").innerText();
}

export async function address(page) {
  const { pathname, search } = new URL(page.url());
  return pathname + search;
}

export async function evaluate(page, { code }) {
  return page.evaluate(code);
}

// Waits until an expression is true, and gives its value. Not by waitForFunction, which the page's policy forbids.
export async function until(page, { code }) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const value = await page.evaluate(code).catch((error) => {
      // It is on its way to another page.
      if (!/context was destroyed|navigat/i.test(error.message)) throw error;
    });
    if (value) return value;
    if (Date.now() > end) throw new Error(`in vain, at ${page.url()}`);
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
}

export async function cookies(page, _, { context }) {
  return context.cookies();
}

// Answers of the server so far.
export function answers(_page, _how, { answers }) {
  return answers;
}

export function complaints(_page, _how, { complaints }) {
  return complaints;
}

export async function screenshot(page, { path, fullPage = true }) {
  await page.screenshot({ path, fullPage, animations: "disabled" });
}

// By how many pixels the page is wider than the window, and what sticks out.
export async function overflow(page) {
  return page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const out = document.documentElement.scrollWidth - width;
    if (out <= 0) return null;
    const wide = [...document.querySelectorAll("body *")].filter((element) => {
      const box = element.getBoundingClientRect();
      return box.width && (box.right > width + 1 || box.left < -1) && !scrolls(element.parentElement);
    });
    return `${out} px: ${wide.slice(0, 4).map(label).join(", ")}`;
    function scrolls(element) {
      for (; element && element !== document.body; element = element.parentElement) {
        if (getComputedStyle(element).overflowX !== "visible") return true;
      }
      return false;
    }
    function label({ tagName, id, className }) {
      return `${tagName.toLowerCase()}${id && `#${id}`}${className && `.${`${className}`.replaceAll(" ", ".")}`}`;
    }
  });
}

function named(page, role, name) {
  return page.getByRole(role, { name, exact: true }).filter({ visible: true }).first();
}

export async function allowClipboard(_page, _how, { context }) {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
}

// To the end and back, so that what loads when it comes near does; players show a picture from within their film.
export async function showAll(page) {
  await page.evaluate(async () => {
    for (let at = 0; at < document.body.scrollHeight; at += innerHeight) {
      scrollTo(0, at);
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    scrollTo(0, 0);
    for (const video of document.querySelectorAll("video[controls]")) video.currentTime = 1;
  });
  await until(page, { code: "[...document.querySelectorAll('main video')].every((video) => video.readyState >= 2 && !video.seeking)" });
}
