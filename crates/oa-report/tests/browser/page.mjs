// Opens the pages in a real Chromium and checks what a person would notice. Started by tests/page.rs, which gives the server's address,
// the token, a folder for screenshots, and what is checked.
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const axe = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const [url, token, folder, chrome, what, server, goesOn] = process.argv.slice(2);
const root = new URL(url);
const PATHS = ["admin/", "admin/logs", "admin/logs?status=failed", "admin/backups", "admin/alerts", "admin/tasks/rongda-positions", "admin/tasks/none", "status"];

const browser = await chromium.launch({
  executablePath: chrome,
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
  ],
});
const complaints = [];
let session;

async function open(options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 900 },
    storageState: session,
    ...options,
  });
  const page = await context.newPage();
  page.pending = new Set();
  page.on("request", (r) => r.resourceType() === "fetch" && page.pending.add(r));
  page.on("requestfinished", (r) => page.pending.delete(r));
  page.on("requestfailed", (r) => page.pending.delete(r));
  page.on("console", (m) => {
    // What is refused says so by its status.
    if (["error", "warning"].includes(m.type()) && !/status of (400|401|403|404)/.test(m.text())) complaints.push(`${page.url()}: ${m.text()}`);
  });
  page.on("pageerror", (e) => complaints.push(`${page.url()}: ${e}`));
  page.on("dialog", (d) => {
    complaints.push(`${page.url()}: a dialog: ${d.message()}`);
    return d.dismiss();
  });
  page.on("request", (r) => {
    if (new URL(r.url()).host !== root.host) complaints.push(`${page.url()} asks ${r.url()}`);
  });
  return page;
}

// Lets the page's own clock go on, and what it asks for then be answered, which takes real time: on a busy machine more than the page's
// clock would leave it, were it let go on meanwhile.
const goOn = async (page, ms, answeredWithin = 20000) => {
  await page.clock.runFor(ms);
  for (const end = Date.now() + answeredWithin; page.pending.size > 0 && Date.now() < end; ) await new Promise((go) => setTimeout(go, 10));
  await page.evaluate(() => 0);
};

// The same until something is so.
const goOnUntil = async (page, ms, wanted, what) => {
  for (let tries = 0; tries < 200 && !(await wanted()); tries += 1) await goOn(page, ms);
  assert.ok(await wanted(), what);
};

const runOf = async (page, status) => {
  await page.goto(`${url}admin/logs?status=${status}`);
  return (await page.locator("table.runs tbody th a").first().getAttribute("href")).slice(1);
};

// What depends on colours and sizes. The rest of a page in another language is the same.
const SEEN = ["color-contrast", "link-in-text-block", "scrollable-region-focusable", "meta-viewport"];

async function everyPageIsAccessible() {
  const page = await open({ bypassCSP: true });
  for (const path of [...PATHS, await runOf(page, "partial")]) {
    for (const lang of ["zh", "en"]) {
      await page.emulateMedia({ colorScheme: "light" });
      await page.setViewportSize({ width: 1280, height: 900 });
      await page.goto(`${url}${path}${path.includes("?") ? "&" : "?"}lang=${lang}`);
      assert.equal(await page.locator("html").getAttribute("lang"), lang === "zh" ? "zh-CN" : "en");
      await page.addScriptTag({ path: axe });
      for (const [colorScheme, width, all] of [["light", 1280, true], ["light", 320, null], ["dark", 390, lang === "zh"]]) {
        await page.emulateMedia({ colorScheme });
        await page.setViewportSize({ width, height: 900 });
        // Nothing sticks out at the side.
        const [inside, outside] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
        assert.ok(inside <= outside, `${path} is ${inside} wide in a window of ${outside}`);
        if (all === null) continue;
        const rules = all ? undefined : { type: "rule", values: SEEN };
        const { violations } = await page.evaluate((rules) => window.axe.run({ resultTypes: ["violations"], ...(rules && { runOnly: rules }) }), rules);
        const found = violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).slice(0, 3).join(" ")}`);
        assert.deepEqual(found, [], `${path} ${lang} ${colorScheme} ${width}`);
      }
    }
  }
  await page.context().close();
}

async function pictures() {
  for (const [name, options, query] of [
    ["desktop", {}, ""],
    ["dark-en", { colorScheme: "dark" }, "?lang=en"],
    ["phone", { viewport: { width: 390, height: 844 } }, ""],
  ]) {
    const page = await open(options);
    const run = await runOf(page, "partial");
    for (const path of ["admin/", "admin/logs", "admin/backups", "admin/alerts", "admin/tasks/rongda-positions", run]) {
      await page.goto(`${url}${path}${query}`);
      const file = path === run ? "run" : path.replace("admin/", "").split("/")[0] || "overview";
      await page.screenshot({ path: `${folder}/${file}-${name}.png`, fullPage: true });
    }
    await page.context().close();
  }
}

async function aHoleLeadsToTheCommandThatFillsIt() {
  const page = await open({ permissions: ["clipboard-read", "clipboard-write"] });
  await page.goto(`${url}admin/`);
  const hole = page.locator(".heat svg a").first();
  await hole.focus();
  await page.keyboard.press("Enter");
  const line = page.locator(".holes li:target");
  assert.equal(await line.count(), 1);
  const command = await line.locator("code").innerText();
  assert.match(command, /^oa-crawl backfill \S+ --from \d{4}-\d\d-\d\d --to \d{4}-\d\d-\d\d$/);
  await line.getByRole("button", { name: "复制" }).click();
  await line.getByRole("button", { name: "已复制" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), command);
  for (const [name, options] of [["desktop", {}], ["dark", { colorScheme: "dark" }], ["narrow", { viewport: { width: 320, height: 700 } }]]) {
    const other = await open(options);
    await other.goto(`${url}admin/`);
    const [inside, outside] = await other.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    assert.ok(inside <= outside, `${inside} wide in a window of ${outside}`);
    // Where it does not fit, its end, which is today, is seen first.
    const seen = await other.locator(".heat").evaluate((e) => {
      const [box, last] = [e.getBoundingClientRect(), e.querySelector("svg a:last-of-type").closest("svg").getBoundingClientRect()];
      return last.right <= box.right + 1 && e.scrollWidth >= e.clientWidth;
    });
    assert.ok(seen, name);
    await other.locator("section[aria-labelledby=heat]").screenshot({ path: `${folder}/heat-${name}.png` });
    await other.context().close();
  }
  await page.context().close();
}

async function theLineOfWhatCanBeRestoredGivesTheCommand() {
  const page = await open();
  await page.goto(`${url}admin/backups`);
  const line = page.locator("#restore-line");
  assert.match(await line.innerText(), /--to latest --target-dir/);
  const pick = page.getByLabel("要恢复到的时间");
  await pick.focus();
  // By the keyboard alone.
  await page.keyboard.press("Home");
  assert.match(await line.innerText(), /--to "\d{4}-\d\d-\d\d \d\d:\d\d:\d\d" --target-dir/);
  await page.keyboard.press("End");
  assert.match(await line.innerText(), /--to latest/);
  // In a gap it is the nearest time before it, and says so.
  await pick.evaluate((e) => {
    e.value = "500";
    e.dispatchEvent(new Event("input", { bubbles: true }));
  });
  assert.ok(await page.locator(".snapped").isVisible());
  await page.context().close();
}

async function theOutputOfARunningProgramIsFollowed() {
  const page = await open();
  await page.clock.install();
  await page.goto(`${url}admin/logs?task=long-list`);
  await page.locator("table.runs tbody th a").first().click();
  const printed = page.locator("#output-text");
  const goesTo = (wanted, what) => goOnUntil(page, 3000, wanted, what);
  await goesTo(async () => (await printed.count()) === 1, "its first lines");
  const first = await printed.innerText();
  assert.match(first, /page \d+ of a long list/);
  await goesTo(async () => (await printed.innerText()) !== first, "more lines");
  await page.screenshot({ path: `${folder}/run-under-way.png` });
  rmSync(goesOn);
  await goesTo(async () => (await printed.innerText()).trim().endsWith("done"), "the last line");
  await goesTo(async () => (await page.locator("h1 .tag.good").count()) === 1, "its end");
  await page.context().close();
}

async function filtersWork() {
  const page = await open();
  await page.goto(`${url}admin/logs`);
  await page.getByLabel("状态").selectOption("failed");
  await page.getByLabel("任务").fill("zhihui-reports");
  await page.getByRole("button", { name: "筛选" }).click();
  const states = await page.locator("table.runs tbody .status").allInnerTexts();
  assert.ok(states.length > 20 && states.every((s) => s.trim() === "失败"), states.join());
  const first = await page.locator("table.runs tbody th a").first().getAttribute("href");
  await page.getByRole("link", { name: "更早" }).click();
  assert.ok(page.url().includes("status=failed") && page.url().includes("before="));
  assert.notEqual(await page.locator("table.runs tbody th a").first().getAttribute("href"), first);
  await page.goto(`${url}admin/logs?since=soon`);
  assert.match(await page.locator("main").innerText(), /is no point in time/);
  await page.context().close();
}

async function languageIsKept() {
  const page = await open();
  await page.goto(`${url}admin/`);
  await page.getByRole("link", { name: "English" }).click();
  await page.getByRole("link", { name: "Backups" }).click();
  assert.match(await page.locator("h1").innerText(), /backups/i);
  await page.context().close();
}

async function theKeyboardIsEnough() {
  const page = await open();
  await page.goto(`${url}admin/`);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  assert.ok(await page.evaluate(() => document.querySelector("main").contains(document.activeElement)));
  await page.context().close();
}

async function newsAppearByThemselves() {
  const page = await open();
  await page.clock.install();
  await page.goto(`${url}admin/`);
  await page.evaluate(() => document.querySelector("main").setAttribute("data-mark", "kept"));
  await page.locator("#verdict").evaluate((e) => (e.textContent = "old"));
  await goOnUntil(page, 16000, async () => (await page.locator("#verdict").innerText()) !== "old", "it keeps itself up to date");
  assert.equal(await page.locator("main").getAttribute("data-mark"), "kept", "the page was not loaded again");
  // Nothing moves under somebody who writes.
  await page.getByLabel("备注").first().fill("half a sen");
  await page.locator("#verdict").evaluate((e) => (e.textContent = "old"));
  await goOn(page, 16000);
  await goOn(page, 16000);
  assert.equal(await page.locator("#verdict").innerText(), "old");
  assert.equal(await page.getByLabel("备注").first().inputValue(), "half a sen");
  // What comes meanwhile is not lost, although the server does not send it again.
  await page.locator("header.top").evaluate((e) => e.setAttribute("data-before", ""));
  const asked = { action: "run", task: "zhihui-reports" };
  await page.request.post(`${url}api/v1/requests`, { headers: { Authorization: `Bearer ${token}` }, data: asked });
  const comes = (enough, what) => goOnUntil(page, 16000, enough, what);
  // The head is of now, the middle stands still.
  await comes(async () => (await page.locator("header.top[data-before]").count()) === 0, "a new head");
  assert.equal(await page.locator("section.asked").count(), 0);
  await page.evaluate(() => document.activeElement.blur());
  await comes(async () => (await page.locator("section.asked").count()) === 1, "what was asked for");
  await page.context().close();
}

// What a page says of itself: whether its server's word still holds.
const saysThatItIsOld = async (page) => ({
  banner: await page.locator(".gone[role=alert]").count(),
  title: (await page.title()).startsWith("? "),
  icon: /icon-lost/.test((await page.locator("link[rel=icon]").getAttribute("href")) ?? ""),
  verdict: await page.locator(".verdict").evaluate((e) => getComputedStyle(e).filter.includes("grayscale")),
});
const OLD = { banner: 1, title: true, icon: true, verdict: true };
const NEW = { banner: 0, title: false, icon: false, verdict: false };

const until = async (page, wanted, what) => {
  // A server that hangs answers nothing, however long it is waited for.
  const lost = wanted.banner === 1;
  for (let tries = 0; tries < 60; tries += 1) {
    await goOn(page, 5000, lost ? 500 : 20000);
    if ((await page.evaluate(() => document.body.classList.contains("lost"))) === lost) break;
  }
  assert.deepEqual(await saysThatItIsOld(page), wanted, what);
};

async function aServerThatDoesNotAnswerIsSeen() {
  const page = await open();
  await page.clock.install();
  await page.goto(`${url}admin/`);
  await until(page, NEW, "fresh");
  for (const status of [502, 401]) {
    await page.route("**/admin/", (route) => route.fulfill({ status, body: "" }));
    await until(page, OLD, `HTTP ${status}`);
    await page.unroute("**/admin/");
    await until(page, NEW, `after HTTP ${status}`);
  }
  // An answer of before, out of something in between.
  const before = await page.evaluate(async () => (await fetch(location.href)).text());
  await page.route("**/admin/", (route) => route.fulfill({ contentType: "text/html", body: before }));
  await until(page, OLD, "the same answer again and again");
  await page.unroute("**/admin/");
  await until(page, NEW, "after it");
  complaints.length = 0;
  // Also under somebody who is in the middle of something.
  await page.getByLabel("备注").first().fill("half a sen");
  process.kill(Number(server), "SIGSTOP");
  await until(page, OLD, "the server hangs");
  assert.equal(await page.getByLabel("备注").first().inputValue(), "half a sen");
  process.kill(Number(server), "SIGCONT");
  await page.getByLabel("备注").first().fill("");
  await page.evaluate(() => document.activeElement.blur());
  await until(page, NEW, "it goes on");
  complaints.length = 0;
  await page.context().close();
}

async function aDeadServerIsSeen() {
  const page = await open();
  await page.clock.install();
  await page.goto(`${url}admin/`);
  const run = await open();
  await run.clock.install();
  await run.goto(`${url}${await runOf(run, "partial")}`);
  process.kill(Number(server), "SIGKILL");
  await until(page, OLD, "the server is dead");
  await page.screenshot({ path: `${folder}/overview-server-dead.png` });
  for (let tries = 0; tries < 60 && (await run.locator(".gone").count()) === 0; tries += 1) await goOn(run, 5000, 500);
  assert.equal(await run.locator(".gone").count(), 1, "on a page that does not change either");
  // What they ask for in vain is no complaint, also what they ask for last.
  await page.context().close();
  await run.context().close();
  complaints.length = 0;
}

async function worksWithoutAScript() {
  const page = await open({ javaScriptEnabled: false });
  await page.goto(`${url}admin/`);
  const open_ = await page.locator("form.ack").count();
  assert.ok(open_ >= 2);
  await page.locator("form.ack input[type=text]").first().fill("我看一下 <b>");
  await page.locator("form.ack button").first().click();
  assert.equal(page.url(), `${url}admin/`);
  assert.equal(await page.locator("form.ack").count(), open_ - 1);
  assert.match(await page.locator("main").innerText(), /wang 处理中：我看一下 <b>/);
  await page.locator(".todo form.act button").first().click();
  assert.equal(page.url(), `${url}admin/`);
  assert.match(await page.locator("section.asked").innerText(), /等待执行（一分钟内）\s+重跑/);
  await page.context().close();
}

async function othersFormsAreRefused() {
  const page = await open();
  await page.goto(`${url}admin/alerts`);
  const forged = await page.evaluate(async () => {
    const answer = await fetch("/admin/act", { method: "POST", body: new URLSearchParams({ do: "ack", subject: "x", form: "guess" }) });
    return answer.status;
  });
  assert.equal(forged, 403);
  await page.context().close();
}

async function attacksStayText() {
  const page = await open();
  const run = await runOf(page, "partial");
  for (const path of [...PATHS, run, "admin/?task=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E", "admin/logs?task=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"]) {
    await page.goto(`${url}${path}`);
    const grown = await page.evaluate(() => ({
      scripts: [...document.scripts].filter((s) => !new URL(s.src, location).pathname.startsWith("/assets/")).length,
      elements: document.querySelectorAll("img, iframe, object, embed, base, marquee, [onerror], [onload], [onclick], [style], a[href^='javascript']").length,
      hit: window.hit ?? null,
    }));
    assert.deepEqual(grown, { scripts: 0, elements: 0, hit: null }, path);
    // All texts are long here.
    await page.setViewportSize({ width: 320, height: 700 });
    const [inside, outside] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
    assert.ok(inside <= outside, `${path} is ${inside} wide in a window of ${outside}`);
    if (path === "admin/") await page.screenshot({ path: `${folder}/overview-long-320.png` });
    await page.setViewportSize({ width: 1280, height: 900 });
  }
  await page.goto(`${url}${run}`);
  assert.match(await page.locator("main").innerText(), /<script>window\.hit=1<\/script>/);
  await page.context().close();
}

// Once, as a person does it, and in each of the windows afterwards.
async function logIn() {
  const page = await open({ viewport: { width: 320, height: 600 } });
  await page.goto(`${url}admin/logs?status=failed`);
  const [inside, outside] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(inside <= outside);
  await page.getByLabel("令牌").fill("wrong");
  await page.getByRole("button", { name: "登录" }).click();
  assert.match(await page.getByRole("alert").innerText(), /令牌不对/);
  await page.screenshot({ path: `${folder}/login-phone.png` });
  await page.getByLabel("令牌").fill(token);
  await page.keyboard.press("Enter");
  await page.waitForURL("**/admin/logs?status=failed");
  session = await page.context().storageState();
  await page.context().close();
}

async function theLoginPageIsAccessible() {
  for (const colorScheme of ["light", "dark"]) {
    const page = await open({ storageState: undefined, colorScheme, bypassCSP: true });
    for (const lang of ["zh", "en"]) {
      await page.goto(`${url}login?lang=${lang}`);
      await page.addScriptTag({ path: axe });
      const { violations } = await page.evaluate(() => window.axe.run());
      assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" ")}`), []);
    }
    await page.context().close();
  }
}

async function whoLogsOutIsOut() {
  const page = await open();
  await page.goto(`${url}admin/`);
  await page.getByRole("button", { name: "退出" }).click();
  await page.waitForURL("**/login");
  await page.goto(`${url}admin/`);
  assert.equal(await page.getByLabel("令牌").count(), 1);
  await page.context().close();
}

const CHECKS = {
  hostile: [logIn, attacksStayText],
  accessible: [logIn, theLoginPageIsAccessible, everyPageIsAccessible],
  friendly: [
    logIn, whoLogsOutIsOut, pictures, aHoleLeadsToTheCommandThatFillsIt, theLineOfWhatCanBeRestoredGivesTheCommand,
    theOutputOfARunningProgramIsFollowed, filtersWork,
    languageIsKept, theKeyboardIsEnough, newsAppearByThemselves, othersFormsAreRefused, worksWithoutAScript, aServerThatDoesNotAnswerIsSeen,
    aDeadServerIsSeen,
  ],
};
const checks = CHECKS[what];
let failed = false;
for (const check of checks) {
  const began = Date.now();
  try {
    await check();
    assert.deepEqual(complaints.splice(0), []);
    console.log(`ok ${check.name || "accessible"} ${Date.now() - began} ms`);
  } catch (e) {
    failed = true;
    console.log(`FAILED ${check.name || "accessible"}: ${e.stack}`);
  }
}
await browser.close();
process.exit(failed ? 1 : 0);
