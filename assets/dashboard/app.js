// What pages do besides being read. Every page works without it.
//
//   data-live="task.updated …"   this region (which has an id) is fetched again when one of these events comes,
//   data-every="10"              … or each so many seconds,
//   data-src="/path"             … from there; unless said, from the page's own address. The answer is a page that
//                                has an element with the same id.
//   data-live-task="ID"          … only for events about this task
//   data-progress="ID SOURCE NAME"   a <progress> that shows how far this file is
//   data-rate="ID SOURCE NAME"   text that tells how fast
//   data-ago                     a <time> whose text says how long ago it was
//   data-copy="TEXT"             a button that copies it
//   <video data-src="/path">     gets its source when it comes near
//   <body data-events="/path">   the events to listen to; data-seen: the id of the last one that the page shows already;
//                                data-now: the server's time when it made the page
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Moments. The server's clock counts, as its moments are told by it.
  const skew = Number(document.body.dataset.now) - Date.now() || 0;
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  function ago(at) {
    const away = (Date.now() + skew - at) / 1000;
    const length = Math.abs(away);
    if (length < 5) return "just now";
    const [size, unit] = units.find(([size]) => length >= size);
    const said = `${Math.floor(length / size)} ${unit}`;
    return away < 0 ? `in ${said}` : `${said} ago`;
  }
  function tellTimes() {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      const text = ago(Date.parse(time.dateTime));
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // Copying. The newer way is there on https and on this machine only.
  async function copy(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    const before = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    before?.focus();
    if (!done) throw new Error("not copied");
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const said = button.dataset.said ?? (button.dataset.said = button.textContent);
    try {
      // A path of ours is of use elsewhere only as a whole URL.
      const text = button.dataset.copy;
      await copy(text.startsWith("/v1/") ? location.origin + text : text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it and copy by hand";
    }
    setTimeout(() => (button.textContent = said), 1600);
  });

  // The theme, without loading the page again.
  const themes = ["auto", "light", "dark"];
  document.querySelector("[data-theme-switch]")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = event.target.querySelector("button");
    const theme = button.value;
    const body = new URLSearchParams({ theme, back: "/" });
    fetch(event.target.action, { method: "POST", body, redirect: "manual" }).catch(() => {});
    root.dataset.theme = theme;
    button.lastChild.data = theme;
    button.value = themes[(themes.indexOf(theme) + 1) % themes.length];
  });

  // Posters: a frame of the video itself, once it comes near.
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      target.src = `${target.dataset.src}#t=0.1`;
    }
  }, { rootMargin: "300px" });
  function watchPosters() {
    for (const video of document.querySelectorAll("video[data-src]:not([src])")) near.observe(video);
  }

  // Makes one element like another and leaves alone what a person is at: focus, scrolling, open details, a film.
  function morph(from, to) {
    if (from.isEqualNode(to)) return;
    if (from.matches("video, audio")) return morphMedia(from, to);
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !mine(from, name)) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) !== value && !mine(from, name)) from.setAttribute(name, value);
    }
    if (from.matches("textarea, input, [data-copy]")) return;
    morphChildren(from, to);
  }
  function mine(element, name) {
    return (name === "open" && element.matches("details, dialog")) || name === "data-said";
  }
  function morphMedia(from, to) {
    const source = (media) => media.dataset.src ?? media.getAttribute("src");
    if (source(from) !== source(to) && (from.paused || from.ended)) from.replaceWith(to);
  }
  const key = (node) => node.id || node.dataset?.key || "";
  const alike = (a, b) => a.nodeName === b.nodeName && key(a) === key(b);
  function morphChildren(from, to) {
    let next = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      let found = next;
      while (found && !alike(found, wanted)) found = found.nextSibling;
      // What has a key is the same wherever it moved; anything else only where it stands.
      if (found && found !== next && !key(wanted) && key(next ?? wanted)) found = null;
      if (!found) {
        from.insertBefore(wanted, next);
        continue;
      }
      if (found !== next) from.insertBefore(found, next);
      else next = next.nextSibling;
      if (found.nodeType === Node.ELEMENT_NODE) morph(found, wanted);
      else if (found.data !== wanted.data) found.data = wanted.data;
    }
    while (next) {
      const gone = next;
      next = next.nextSibling;
      gone.remove();
    }
  }

  // Regions. Those from one address are fetched together, at most once a second, and only while somebody looks.
  const regions = () => [...document.querySelectorAll("[data-live], [data-every]")];
  const sourceOf = (region) => region.dataset.src || location.pathname + location.search;
  const fetched = new Map();
  function want(region) {
    const source = sourceOf(region);
    const state = fetched.get(source) ?? { last: -1e9, timer: 0, missed: false };
    fetched.set(source, state);
    if (document.hidden) {
      state.missed = true;
      return;
    }
    if (state.timer) return;
    const wait = Math.max(120, state.last + 1000 - performance.now());
    state.timer = setTimeout(() => load(source, state), wait);
  }
  async function load(source, state) {
    try {
      const answer = await fetch(source, { headers: { accept: "text/html" } });
      if (new URL(answer.url).pathname === "/login") return location.reload();
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const region of regions().filter((region) => sourceOf(region) === source)) {
        const fresh = page.getElementById(region.id);
        if (fresh) morph(region, document.adoptNode(fresh));
      }
      tellTimes();
      watchPosters();
    } catch {
      // The server is away for a moment; the next event or interval asks again.
    } finally {
      state.last = performance.now();
      state.timer = 0;
    }
  }
  function wantAll() {
    regions().forEach(want);
  }
  function wantWhatHeeds(name, about) {
    for (const region of regions()) {
      const task = region.dataset.liveTask;
      if (region.dataset.live?.split(" ").includes(name) && (!task || !about || task === about)) want(region);
    }
  }

  // How far files are: told by the events themselves, many a second, so nothing is fetched.
  function showProgress({ task_id, source, name, bytes, total, bytes_per_second: rate }) {
    const label = `${task_id} ${source} ${name}`;
    for (const bar of document.querySelectorAll("progress[data-progress]")) {
      if (bar.dataset.progress !== label) continue;
      if (total) [bar.max, bar.value] = [total, bytes];
      else bar.removeAttribute("value");
    }
    for (const text of document.querySelectorAll("[data-rate]")) {
      if (text.dataset.rate === label) text.textContent = `${size(bytes)}${total ? ` of ${size(total)}` : ""}, ${size(rate)}/s`;
    }
  }
  function size(bytes) {
    const names = ["B", "kB", "MB", "GB", "TB"];
    const power = Math.min(names.length - 1, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
    return power ? `${(bytes / 1000 ** power).toFixed(1)} ${names[power]}` : `${bytes} B`;
  }

  // Events: one connection for each page that is looked at. A hidden one lets go, as browsers keep six for a server
  // in all, and catches up when it is looked at again.
  const heard = ["task.updated", "file.stored", "file.failed", "queue.paused", "queue.resumed"];
  const dot = document.querySelector("[data-live-state]");
  let events = null;
  let again = 0;
  let pause = 2000;
  let seen = document.body.dataset.seen;
  function tell(state) {
    if (!dot) return;
    dot.hidden = false;
    dot.dataset.liveState = state;
    dot.title = state === "live" ? "This page follows what happens" : "The server does not answer; trying again";
    dot.querySelector(".label").textContent = state;
  }
  function parsed(event) {
    try {
      return JSON.parse(event.data);
    } catch {
      return {};
    }
  }
  function listen() {
    const path = document.body.dataset.events;
    if (!path || events || document.hidden || !regions().length) return;
    let opened = false;
    // What came between this page and its events comes first.
    events = new EventSource(`${path}${path.includes("?") ? "&" : "?"}last_event_id=${seen}`);
    events.addEventListener("open", () => {
      pause = 2000;
      // The server may be another one by now, which does not know what that id was.
      if (opened || again) wantAll();
      opened = true;
      tell("live");
    });
    for (const name of heard) {
      events.addEventListener(name, (event) => {
        seen = event.lastEventId || seen;
        wantWhatHeeds(name, parsed(event).task_id);
      });
    }
    events.addEventListener("file.progress", (event) => showProgress(parsed(event)));
    events.addEventListener("reset", wantAll);
    events.addEventListener("error", () => {
      if (opened || again > 1) tell("reconnecting");
      if (events?.readyState !== EventSource.CLOSED) return;
      // Refused: the browser gives up then, and a server that restarts refuses for a while.
      hush();
      again += 1;
      if (opened || again < 6) setTimeout(listen, pause);
      pause = Math.min(pause * 2, 60000);
    });
  }
  function hush() {
    events?.close();
    events = null;
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return hush();
    listen();
    wantAll();
    tellTimes();
  });
  window.addEventListener("pagehide", hush);
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) listen();
  });

  function everySoOften() {
    const now = Math.floor(performance.now() / 1000);
    for (const region of document.querySelectorAll("[data-every]")) {
      if (!document.hidden && now % Number(region.dataset.every) === 0) want(region);
    }
  }

  tellTimes();
  watchPosters();
  listen();
  setInterval(tellTimes, 5000);
  setInterval(everySoOften, 1000);
})();
