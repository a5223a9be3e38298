// What a first visit costs: bytes on the wire, requests, what holds up the first picture.
export async function firstLoad(page, { path }, { context }) {
  const wire = await context.newCDPSession(page);
  const requests = new Map();
  wire.on("Network.requestWillBeSent", ({ requestId, request, type }) => {
    requests.set(requestId, { path: new URL(request.url).pathname, kind: type, bytes: 0 });
  });
  wire.on("Network.dataReceived", ({ requestId, encodedDataLength }) => {
    const request = requests.get(requestId);
    if (request) request.bytes += encodedDataLength;
  });
  wire.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
    const request = requests.get(requestId);
    if (request) request.bytes = encodedDataLength;
  });
  await wire.send("Network.enable");
  await wire.send("Network.setCacheDisabled", { cacheDisabled: true });
  await page.goto(path, { waitUntil: "load" });
  const { blocking, ready } = await page.evaluate(() => {
    const holds = 'head link[rel~="stylesheet"], head script[src]:not([defer], [async], [type="module"])';
    const [navigation] = performance.getEntriesByType("navigation");
    return {
      blocking: [...document.querySelectorAll(holds)].map((element) => element.getAttribute("href") ?? element.getAttribute("src")),
      ready: Math.round(navigation.domContentLoadedEventEnd),
    };
  });
  await wire.detach();
  return { requests: [...requests.values()], blocking, ready };
}
