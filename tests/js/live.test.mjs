// SPDX-License-Identifier: MIT
// The client in Node with spoke's own listeners, and with NNG's.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import * as spoke from "../../clients/js/spoke.js";
import { freeAddress, peers, Program } from "./peers.mjs";
import { makeScenarios, until } from "./scenarios.mjs";
import { WebSocket } from "./websocket.mjs";

const { text } = spoke;

after(() => peers.killAll());

for (const [name, run] of Object.entries(makeScenarios(spoke, { WebSocket })))
    test(name, { timeout: 60_000 }, () => run(peers));

for (const [name, command, args] of [
    ["spoke cat", process.env.SPOKE, (url) => ["cat", "--rep", "--bind", url, "--data", "hi", "--quoted"]],
    ["nngcat", "nngcat", (url) => ["--rep", "--listen", url, "--data", "hi", "--quoted"]],
]) {
    test(`req: ${name} answers`, { timeout: 60_000 }, async (t) => {
        const url = `ws://${freeAddress()}/cat`;
        const req = new spoke.Req(url, { WebSocket, reconnectTime: 20 });
        const program = new Program(command, args(url));

        t.after(() => program.kill());
        assert.equal(text(await req.request("hello", { timeout: 30_000 })), "hi");
        assert.deepEqual(await program.first(1), ['"hello"']);
        await req.close();
    });
}

test("another pattern's socket is no peer, and the dialer goes on", { timeout: 60_000 }, async () => {
    const { url, id } = await peers.start("pull");
    const req = new spoke.Req(url, { WebSocket, reconnectTime: 5 });

    await until(() => req.stats.dialsFailed >= 2);
    assert.equal(req.peers, 0);
    await req.close();
    await peers.kill(id);
});
