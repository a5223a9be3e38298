// Milliseconds that one thing may take.
export const PATIENCE = 20_000;

// A page in a profile of its own, and all that it does which no page of ours may: complain, ask strangers, open dialogs.
export class Watched {
  static async open(browser, { origin, dark = false, width = 1280, height = 800, script = true }) {
    const context = await browser.newContext({
      baseURL: origin,
      colorScheme: dark ? "dark" : "light",
      viewport: { width, height },
      hasTouch: width < 500,
      isMobile: width < 500,
      javaScriptEnabled: script,
      reducedMotion: "reduce",
      locale: "en-GB",
    });
    context.setDefaultTimeout(PATIENCE);
    const watched = new Watched(origin, context, await context.newPage());
    await watched.watch();
    return watched;
  }

  constructor(origin, context, page) {
    Object.assign(this, { origin, context, page, complaints: [], requests: [], answers: [] });
  }

  async watch() {
    const { context, complaints, page } = this;
    const complain = (what) => complaints.push(what);
    page.on("console", (message) => {
      const { url } = message.location();
      if (["error", "warning"].includes(message.type())) complain(`console: ${message.text()} (${url})`);
    });
    page.on("pageerror", (error) => complain(`script: ${error.message}`));
    page.on("dialog", (dialog) => {
      complain(`dialog: ${dialog.message()}`);
      dialog.dismiss().catch(() => {});
    });
    context.on("page", (other) => complain(`window: ${other.url()}`));
    context.on("request", (request) => this.asked(request));
    page.on("websocket", (socket) => complain(`leaves the origin: ${socket.url()}`));
    page.on("response", (response) => {
      const range = response.request().headers()["range"] ?? null;
      this.answers.push({ path: pathOf(response.url()), status: response.status(), range });
    });
    await context.exposeFunction("complainToTheTest", (text) => complain(`policy: ${text}`));
    await context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => {
        window.complainToTheTest(`${event.violatedDirective} ${event.blockedURI}`);
      });
    });
  }

  asked(request) {
    const url = request.url();
    const isOurs = url.startsWith(`${this.origin}/`) || /^(data|blob|about):/.test(url);
    if (!isOurs) this.complaints.push(`leaves the origin: ${url}`);
    this.requests.push({ path: pathOf(url), method: request.method(), kind: request.resourceType() });
  }

  async close() {
    await this.context.close();
    return this.complaints;
  }
}

function pathOf(url) {
  const { pathname, search } = new URL(url);
  return pathname + search;
}
