// SPDX-License-Identifier: MIT
// The client in a headless Chromium with spoke's own listeners.  This process serves the page, and
// starts and kills the listeners as the page asks for it.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { Req, text } from "../../clients/js/spoke.js";
import { Browser } from "./chromium.mjs";
import { freeAddress, peers, Program, startDemo } from "./peers.mjs";
import { decode } from "./png.mjs";
import { makeScenarios, until } from "./scenarios.mjs";
import { WebSocket } from "./websocket.mjs";

const PAGE = `<!doctype html><meta charset="utf-8"><title>tests</title><script type="module">
    import * as spoke from "/clients/js/spoke.js";
    import { makeScenarios } from "/tests/js/scenarios.mjs";
    const call = (name) => async (...words) => {
        const answer = await fetch("/peers/" + name, { method: "POST", body: JSON.stringify(words) });
        if (!answer.ok)
            throw new Error(await answer.text());
        return answer.json();
    };
    const peers = Object.fromEntries(
        ["start", "write", "lines", "kill", "restart"].map((name) => [name, call(name)]));
    const scenarios = makeScenarios(spoke, {});
    window.spoke = spoke;
    window.run = (name) => scenarios[name](peers);
</script>`;
let server, browser, origin;

async function answer(request, response) {
    const { pathname } = new URL(request.url, origin);

    if (request.method === "POST") {
        let body = "";
        for await (const piece of request)
            body += piece;
        const result = await peers[pathname.slice("/peers/".length)](...JSON.parse(body));
        response.setHeader("Content-Type", "application/json").end(JSON.stringify(result ?? null));
    } else if (pathname === "/") {
        response.setHeader("Content-Type", "text/html").end(PAGE);
    } else {
        const file = await readFile(new URL(`../..${pathname}`, import.meta.url));
        response.setHeader("Content-Type", "text/javascript").end(file);
    }
}

before(async () => {
    server = createServer((request, response) => answer(request, response).catch(
        (error) => response.writeHead(500).end(error.message))).listen(0, "127.0.0.1");
    await once(server, "listening");
    origin = `http://127.0.0.1:${server.address().port}`;
    browser = await Browser.launch();
    await browser.open(origin);
});

after(async () => {
    await browser?.close();
    await peers.killAll();
    server.closeAllConnections();
    server.close();
});

for (const name of Object.keys(makeScenarios({}, {})))
    test(`Chromium: ${name}`, { timeout: 60_000 },
        () => browser.evaluate(`run(${JSON.stringify(name)})`));

test("Chromium: a listener that checks where pages come from refuses ours", { timeout: 60_000 }, async (t) => {
    const url = `ws://${freeAddress()}/`;
    const program = new Program(process.env.SPOKE, ["cat", "--rep", "--bind", url, "--data", "hi"]);
    const req = new Req(url, { WebSocket, reconnectTime: 20 });

    t.after(() => program.kill());
    // It listens, and takes who comes from no page.
    assert.equal(text(await req.request("hello", { timeout: 30_000 })), "hi");
    await req.close();
    assert.equal(await browser.evaluate(`(async () => {
        const req = new spoke.Req("${url}");
        const { type, reason } = await new Promise((resolve) => {
            req.addEventListener("dialfailed", resolve);
            req.addEventListener("attached", resolve);
        });
        await req.close();
        return type + " " + reason;
    })()`), "dialfailed SPOKE_ECONNREFUSED");
});

// What the page shows: the texts of its figures, and how often each colour is in its picture.
async function look() {
    const figures = await browser.evaluate(`Object.fromEntries(
        [...document.querySelectorAll("dd, #state, #top")].map(({ id, textContent }) => [id, textContent]))`);
    const { pixels } = decode(await browser.screenshot());
    const colours = new Map();
    for (const pixel of pixels)
        colours.set(pixel, (colours.get(pixel) ?? 0) + 1);
    return { figures, colours, total: pixels.length };
}

test("Chromium: the page of spoke demo --web shows live figures", { timeout: 60_000 }, async (t) => {
    const { program, url } = await startDemo();
    t.after(() => program.kill());
    await browser.open(url);
    const number = (id) => browser.evaluate(`parseFloat(document.getElementById("${id}").textContent.replace(/,/g, ""))`);
    const first = await until(() => number("sent"));
    await until(async () => await number("sent") >= first + 5);
    const { figures, colours, total } = await look();
    assert.equal(figures.state, "connected");
    assert.equal(figures.subscribers, "1");
    for (const id of ["sent", "rate", "cpu", "memory", "seconds", "top"])
        assert.match(figures[id], /^[0-9]/, id);
    assert.ok(await browser.evaluate(`document.getElementById("line").points.length`) >= 5);
    // Neither one colour, nor a few specks on it: text has shades, frames and the line have theirs.
    assert.ok(total >= 1000 * 600 && colours.size > 30, `${colours.size} colours`);
    assert.ok(Math.max(...colours.values()) < total * 0.995);
    if (process.env.SCREENSHOT !== undefined)
        await writeFile(process.env.SCREENSHOT, await browser.screenshot());
    await program.kill();
    await until(async () => /^not connected/.test((await look()).figures.state));
});
