// Pages as those meet them who have a keyboard only.

// All that Tab reaches, in its order: what it is, and whether one sees that it has the focus.
export async function walk(page, { most = 400 }) {
  await page.evaluate(() => {
    document.activeElement?.blur();
    window.getSelection().removeAllRanges();
    window.scrollTo(0, 0);
  });
  const reached = [];
  for (let step = 0; step < most; step += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(standing);
    if (!at) return reached;
    // A player has stops of its own inside.
    if (reached.at(-1)?.number === at.number) continue;
    if (reached.some(({ number }) => number === at.number)) return reached;
    reached.push(at);
  }
  throw new Error(`more than ${most} stops`);
}

function standing() {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const all = [...document.querySelectorAll("*")];
  const { outlineStyle, outlineWidth } = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  const inView = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return {
    number: all.indexOf(element),
    tag: element.tagName.toLowerCase(),
    name: (element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent ?? element.textContent).trim().slice(0, 60),
    seen: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && inView,
  };
}

// All that can be done on a page, by what a mouse finds: numbers as above.
export async function outline(page) {
  return page.evaluate(() => {
    const all = [...document.querySelectorAll("*")];
    const usable = "a[href], button, input:not([type=hidden]), select, textarea, summary, video[controls]";
    return [...document.querySelectorAll(usable)]
      .filter((element) => element.checkVisibility({ visibilityProperty: true }) && !element.disabled)
      .map((element) => ({ number: all.indexOf(element), tag: element.tagName.toLowerCase(), name: element.textContent.trim().slice(0, 60) }));
  });
}
