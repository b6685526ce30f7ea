// Keeps a page up to date: asks for it again now and then, and puts its middle in the place of the old one. Without this script the
// pages work as well; they are then as old as their last load.
"use strict";
(() => {
  const EACH = 15000;
  const main = document.querySelector("main[data-live]");
  if (!main) return;
  const parser = new DOMParser();
  let tag = null;

  // Nothing moves under somebody who is reading a detail, choosing or writing.
  const busy = () => {
    const at = document.activeElement;
    const writing = at && main.contains(at) && at.matches("input, select, textarea");
    return writing || main.querySelector("details[open]") !== null || String(window.getSelection()) !== "";
  };

  const put = (text) => {
    const page = parser.parseFromString(text, "text/html");
    const news = page.querySelector("main");
    if (!news) return;
    const focused = main.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    main.replaceChildren(...news.childNodes);
    if (focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    for (const place of ["header.top", ".stale"]) {
      const [old, next] = [document.querySelector(place), page.querySelector(place)];
      if (old && next) old.replaceWith(next);
      else if (old) old.remove();
      else if (next) main.before(next);
    }
    document.title = page.title;
  };

  const lost = () => {
    document.body.classList.add("lost");
  };

  const look = async () => {
    if (document.hidden || busy()) return;
    try {
      const answer = await fetch(location.href, {
        headers: tag ? { "If-None-Match": tag } : {},
        cache: "no-store",
        credentials: "same-origin",
        redirect: "error",
      });
      const ours = (answer.headers.get("content-type") || "").startsWith("text/html");
      if (!answer.ok || !ours) {
        if (answer.status !== 304) lost();
        return;
      }
      tag = answer.headers.get("etag");
      const text = await answer.text();
      if (!busy()) put(text);
      document.body.classList.remove("lost");
    } catch {
      lost();
    }
  };

  setInterval(look, EACH);
  document.addEventListener("visibilitychange", look);
})();
