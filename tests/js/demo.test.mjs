// SPDX-License-Identifier: MIT
// spoke demo --web without a browser: its files, its figures, and who gets them.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test as nodeTest } from "node:test";
import { Sub, text } from "../../clients/js/spoke.js";
import { startDemo } from "./peers.mjs";
import { ClientOfNodeWs, WebSocket } from "./websocket.mjs";

const figuresOf = (url) => new URL("/figures", url).href;

const test = (name, run) => nodeTest(`demo: ${name}`, { timeout: 60_000 }, async () => {
    const demo = await startDemo();
    try {
        await run(demo);
    } finally {
        await demo.program.kill();
    }
});

test("the page and the client are those of the tree", async ({ url }) => {
    for (const [path, file, type] of [
        ["", "demo/index.html", "text/html"], ["page.js", "demo/page.js", "text/javascript"],
        ...["spoke.js", "socket.js", "common.js"].map((name) => [`../${name}`, name, "text/javascript"]),
    ]) {
        const response = await fetch(new URL(path, url));
        assert.equal(response.status, 200, path);
        assert.ok(response.headers.get("content-type").startsWith(type));
        assert.equal(await response.text(),
            await readFile(new URL(`../../clients/js/${file}`, import.meta.url), "utf8"));
    }
    assert.equal((await fetch(new URL("nothing", url))).status, 404);
});

test("figures come again and again, and count what came before", async ({ url }) => {
    const sub = new Sub(figuresOf(url), { WebSocket, topics: ["figures "] });
    const got = [];
    for await (const body of sub) {
        const figures = JSON.parse(text(body).slice("figures ".length));
        // What comes first may have been counted before we came.
        if (figures.socket.pipes_current === 1 && got.push(figures) === 3)
            break;
    }
    assert.equal(got[0].socket.protocol, 32);
    assert.equal(got[2].socket.messages_sent, got[0].socket.messages_sent + 2);
    assert.ok(got[2].seconds > got[0].seconds && got[2].cpu_ms >= got[0].cpu_ms && got[0].peak_kib > 100);
    assert.ok(got[2].engine.system_calls > got[0].engine.system_calls);
    await sub.close();
});

test("pages from elsewhere get none", async ({ url }) => {
    const there = figuresOf(url).replace("http", "ws");
    const own = new URL(url).origin;
    for (const [origin, isWelcome] of [
        [own, true], [undefined, true],
        ["http://example.org", false], ["http://127.0.0.1", false], [`${own}0`, false], ["null", false],
    ]) {
        const ws = new ClientOfNodeWs(there, ["pub.sp.nanomsg.org"], { origin });
        const outcome = await new Promise((resolve) => {
            ws.on("message", () => resolve(true));
            ws.on("close", () => resolve(false));
            ws.on("error", () => {}); // "close" follows
        });
        assert.equal(outcome, isWelcome, origin);
        ws.terminate();
    }
});

test("an interrupt ends it", async ({ program, url }) => {
    const sub = new Sub(figuresOf(url), { WebSocket, topics: [""] });
    await sub.receive();
    program.child.kill("SIGINT");
    const [code, signal] = await program.ended;
    assert.deepEqual([code, signal], [null, "SIGINT"]);
    await sub.close();
});

test("options that do not go together, a port that is taken", async ({ url }) => {
    const run = (...words) => {
        const { status, stderr } = spawnSync(process.env.SPOKE, ["demo", ...words], { encoding: "utf8" });
        return `${status} ${stderr}`;
    };
    assert.match(run("--web", "--no-bench"), /^1 .*--no-bench says nothing about --web/);
    assert.match(run("--port", "1"), /^1 .*add --web/);
    assert.match(run("--web", "--port", "65536"), /^1 /);
    assert.match(run("--web", "--port", new URL(url).port), /^3 .*in use/);
});
