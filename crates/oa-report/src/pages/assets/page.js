// Keeps a page up to date, and says so when it is not: asks for it again now and then, puts its middle in the place of the old one, and
// when no answer comes, or none that is newer, puts a banner over the page, takes the colour from its verdict, and marks the tab. Without
// this script the pages work as well; they are then as old as their last load.
"use strict";
(() => {
  const HIDDEN_EACH = 60000;
  const PATIENCE = 10000;
  // Without news for so long, what is shown may not be true any more.
  const OLD = 45000;
  const main = document.querySelector("main[data-made]");
  if (!main) return;
  const live = main.hasAttribute("data-live");
  // What is under way is asked for more often, until it has ended.
  const each = () => 1000 * (Number(main.dataset.each) || 15);
  const parser = new DOMParser();
  const zh = document.documentElement.lang.startsWith("zh");
  const say = (chinese, english) => (zh ? chinese : english);
  const icon = () => document.querySelector("link[rel=icon]");
  let title = document.title;
  let own = icon()?.getAttribute("href");
  let tag = null;
  // When the server's last new word came, when what is shown was made, and why no word came since.
  let heard = Date.now();
  let shown = Date.now();
  let made = Number(main.dataset.made);
  let why = null;
  let asked = 0;
  let asking = false;
  // News that came while somebody was reading or writing: the server does not send them again.
  let waiting = null;
  // How far this machine's clock is from the server's.
  let drift = made - Date.now();
  // It could not be loaded once the server is gone.
  if (icon()?.dataset.lost) fetch(icon().dataset.lost, { credentials: "same-origin" }).catch(() => {});

  // Nothing moves under somebody who is reading a detail, choosing or writing.
  const busy = () => {
    const at = document.activeElement;
    const writing = at && main.contains(at) && at.matches("input, select, textarea");
    return writing || main.querySelector("details[open]") !== null || String(window.getSelection()) !== "";
  };

  // In the zone of the service, as all times of the page.
  const clock = (at) => new Date(at).toLocaleTimeString(zh ? "zh-CN" : "en-GB", { hour12: false, timeZone: main.dataset.zone });

  const short = (seconds) => {
    if (seconds < 60) return `${Math.floor(seconds)} ${say("秒", "s")}`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} ${say("分钟", "min")}`;
    if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} ${say("小时", "h")}`;
    return `${Math.floor(seconds / 86400)} ${say("天", "d")}`;
  };

  // How long ago things were goes on while the rest of the page stays as it is.
  const age = () => {
    const now = Date.now() + drift;
    for (const time of document.querySelectorAll("time.ago")) {
      const off = (now - Date.parse(time.dateTime)) / 1000;
      const text = off >= 0 ? say(`${short(off)}前`, `${short(off)} ago`) : say(`${short(-off)}后`, `in ${short(-off)}`);
      if (time.textContent !== text) time.textContent = text;
    }
  };

  const outage = () => {
    const now = Date.now();
    if (why) {
      return {
        head: say(`与服务器失去联系，下面是 ${clock(heard)} 的情况，现在可能已经不同`, `No word from the server: this is what was known at ${clock(heard)}, and may not be true any more`),
        text: why,
      };
    }
    if (now - heard > OLD) {
      return {
        head: say(`下面是 ${clock(heard)} 的情况，现在可能已经不同`, `This is what was known at ${clock(heard)}, and may not be true any more`),
        text: say("正在等待服务器的新消息", "waiting for news from the server"),
      };
    }
    if (live && now - shown > OLD) {
      return {
        head: say(`页面暂停在 ${clock(shown)} 的情况`, `The page stands still at ${clock(shown)}`),
        text: say("正在查看或填写时页面不会变动；收起详情、取消选择后自动更新", "it does not move while you read a detail or write; close it and it goes on"),
      };
    }
    return null;
  };

  const mark = () => {
    const found = outage();
    const old = document.querySelector(".gone");
    document.body.classList.toggle("lost", found !== null);
    document.title = found ? `? ${title.replace(/^[✕▲?] /, "")}` : title;
    const link = icon();
    if (link) {
      const href = found ? link.dataset.lost : own;
      if (href && link.getAttribute("href") !== href) link.setAttribute("href", href);
    }
    if (!found) {
      old?.remove();
      return;
    }
    // Said once, and not again each time that it is still so.
    if (old && old.dataset.head === found.head && old.dataset.text === found.text) return;
    const banner = document.createElement("div");
    banner.className = "gone stale";
    banner.setAttribute("role", "alert");
    Object.assign(banner.dataset, found);
    const inner = document.createElement("div");
    inner.className = "inner";
    const words = document.createElement("div");
    const head = document.createElement("strong");
    head.textContent = found.head;
    const text = document.createElement("p");
    text.textContent = found.text;
    words.append(head, text);
    inner.append(words);
    banner.append(inner);
    if (old) old.replaceWith(banner);
    else main.before(banner);
  };

  // Head and banners, always: they say what the middle, which may stand still, does not.
  const putAround = (page) => {
    for (const place of ["header.top", ".stale:not(.gone)"]) {
      const [old, next] = [document.querySelector(place), page.querySelector(place)];
      if (old && next) old.replaceWith(next);
      else if (old) old.remove();
      else if (next) main.before(next);
    }
    document.body.classList.toggle("old", page.body.classList.contains("old"));
  };

  const put = (page) => {
    const news = page.querySelector("main");
    if (!news) return;
    const focused = main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    waiting = null;
    main.replaceChildren(...news.childNodes);
    main.dataset.each = news.dataset.each;
    if (focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    shown = Date.now();
  };

  const answer = async () => {
    const ending = new AbortController();
    const timer = setTimeout(() => ending.abort(), PATIENCE);
    try {
      const got = await fetch(location.href, {
        headers: tag ? { "If-None-Match": tag } : {},
        cache: "no-store",
        credentials: "same-origin",
        redirect: "error",
        signal: ending.signal,
      });
      return [got, got.status === 304 ? "" : await got.text()];
    } finally {
      clearTimeout(timer);
    }
  };

  const take = (got, text) => {
    const page = text && (got.headers.get("content-type") || "").startsWith("text/html") ? parser.parseFromString(text, "text/html") : null;
    const now = Number(page?.querySelector("main[data-made]")?.dataset.made);
    if (got.status === 304) {
      heard = Date.now();
      if (waiting && !busy()) put(waiting);
      if (!waiting) shown = heard;
      const updated = document.querySelector("time.made");
      if (updated) updated.textContent = clock(heard + drift);
      return null;
    }
    if (!got.ok) return say(`服务器回答 HTTP ${got.status}`, `the server answers HTTP ${got.status}`);
    if (!now) return say("收到的不是这个页面（登录页或代理的页面？）", "what came is not this page (a login or a proxy's page?)");
    // Something in between gives out an answer of before.
    if (now <= made) return Date.now() - heard > OLD ? say("收到的一直是旧的页面", "what comes is the same old page") : why;
    made = now;
    heard = Date.now();
    drift = made - heard;
    tag = got.headers.get("etag");
    title = page.title;
    own = page.querySelector("link[rel=icon]")?.getAttribute("href") ?? own;
    putAround(page);
    if (live) waiting = page;
    if (live && !busy()) put(page);
    return null;
  };

  const look = async () => {
    if (asking) return;
    asking = true;
    asked = Date.now();
    try {
      why = take(...(await answer()));
    } catch (e) {
      why = e.name === "AbortError" ? say("服务器没有回答", "the server does not answer") : say("连接不上服务器", "the server cannot be reached");
    } finally {
      asking = false;
    }
    mark();
  };

  // Buttons that copy a command: they do nothing without this script, and are not shown then.
  document.body.classList.add("scripted");
  document.addEventListener("click", async (e) => {
    const button = e.target instanceof Element ? e.target.closest("button[data-copy], button[data-copy-of]") : null;
    if (!button) return;
    const long = document.getElementById(button.dataset.copyOf);
    try {
      await navigator.clipboard.writeText(long ? long.textContent : button.dataset.copy);
      const words = button.textContent;
      button.textContent = say("已复制", "Copied");
      setTimeout(() => (button.textContent = words), 2000);
    } catch {
      // Without TLS there is no clipboard: what is to be copied is selected.
      const code = long ?? button.parentElement.querySelector("code");
      if (code) window.getSelection().selectAllChildren(code);
    }
  });

  // The time that somebody chooses on the line of what can be restored, in the service's zone, as the command takes it.
  document.addEventListener("input", (e) => {
    const pick = e.target instanceof Element && e.target.matches(".pick") ? e.target : null;
    const line = document.getElementById("restore-line");
    if (!pick || !line) return;
    const spans = pick.dataset.spans.split(" ").map((s) => s.split("-").map(Number));
    const [from, until] = [Number(pick.dataset.from), Number(pick.dataset.until)];
    const wanted = from + ((until - from) * Number(pick.value)) / 1000;
    const before = spans.filter(([first]) => first <= wanted).pop() ?? spans[0];
    const at = Math.max(before[0], Math.min(before[1], wanted));
    const isLast = Number(pick.value) === 1000;
    const parts = new Intl.DateTimeFormat("sv-SE", { timeZone: main.dataset.zone, dateStyle: "short", timeStyle: "medium" }).format(at);
    const to = isLast ? "latest" : `"${parts}"`;
    line.textContent = line.textContent.replace(/--to (latest|"[^"]*")/, `--to ${to}`);
    pick.setAttribute("aria-valuetext", isLast ? "latest" : parts);
    line.parentElement.querySelector(".snapped").hidden = isLast || Math.abs(at - wanted) < 1000;
  });

  setInterval(() => {
    mark();
    age();
    if (Date.now() - asked >= (document.hidden ? HIDDEN_EACH : each()) - 500) look();
  }, Math.min(5000, each()));
  document.addEventListener("visibilitychange", () => {
    mark();
    if (!document.hidden) look();
  });
  window.addEventListener("pageshow", (e) => {
    if (e.persisted) look();
  });
  window.addEventListener("online", look);
  window.addEventListener("offline", look);
})();
