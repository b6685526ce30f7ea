// dev only
import { chromium } from "playwright-core";
const [url, token, out] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
const shot = async (name, path, opts = {}) => {
  const ctx = await browser.newContext({ viewport: opts.phone ? { width: 390, height: 844 } : { width: 1280, height: 900 }, colorScheme: opts.dark ? "dark" : "light", httpCredentials: { username: "wang", password: token }, deviceScaleFactor: 1 });
  const page = await ctx.newPage();
  page.on("console", m => console.log(name, m.type(), m.text()));
  await page.goto(url + path);
  await page.screenshot({ path: `${out}/${name}.png`, fullPage: true });
  await ctx.close();
};
await shot("overview", "admin/");
await shot("overview-en-dark", "admin/?lang=en", { dark: true });
await shot("overview-phone", "admin/", { phone: true });
await shot("logs", "admin/logs");
await shot("backups", "admin/backups");
await shot("alerts", "admin/alerts");
await shot("task", "admin/tasks/rongda-positions");
const ctx = await browser.newContext({ httpCredentials: { username: "wang", password: token } });
const page = await ctx.newPage();
await page.goto(url + "admin/logs?status=partial");
const href = await page.locator("table.runs a").first().getAttribute("href");
await ctx.close();
await shot("run", href.slice(1));
await shot("run-phone", href.slice(1), { phone: true });
await browser.close();
