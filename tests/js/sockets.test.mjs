// SPDX-License-Identifier: MIT
// Queues, waiting, connecting and closing, which are the same for all patterns.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:net";
import * as spoke from "../../clients/js/spoke.js";
import { eventOf, holdTimer, isCode, test, wait } from "./fixture.mjs";
import { freeAddress } from "./peers.mjs";
import { until } from "./scenarios.mjs";
import { Server } from "./server.mjs";
import { WebSocket } from "./websocket.mjs";

const { text } = spoke;
const nowhere = () => `ws://${freeAddress()}/`;
const isSettled = (promise) => Promise.race([
    promise.then(() => true, () => true), new Promise((resolve) => setTimeout(resolve, 20, false))]);

// ---- arguments ----

test("what is wrong with a call is said at once, and nothing begins", async ({ server }) => {
    for (const [code, url, options] of [
        ["SPOKE_EURL", "", {}], ["SPOKE_EURL", "no url", {}], ["SPOKE_EURL", "/relative", {}],
        ["SPOKE_EURL", [], {}], ["SPOKE_ESCHEME", "tcp://127.0.0.1:1", {}],
        ["SPOKE_ESCHEME", [server.url, "file:///x"], {}], ["SPOKE_EOPTION", server.url, { color: 1 }],
        ["SPOKE_EOPTION", server.url, { retryTime: 1 }], // another pattern's
        ["SPOKE_ETYPE", server.url, { linger: "1" }], ["SPOKE_ERANGE", server.url, { linger: -1 }],
        ["SPOKE_ERANGE", server.url, { sendQueue: NaN }], ["SPOKE_ERANGE", server.url, { loss: "all" }],
        ["SPOKE_ERANGE", server.url, { reconnectTime: 2 ** 31 }],
        ["SPOKE_EINVAL", server.url, { topics: [1] }],
    ])
        assert.throws(() => new spoke.Sub(url, { WebSocket, ...options }), isCode(code), `${code} ${url}`);
    const kept = globalThis.WebSocket;
    delete globalThis.WebSocket;
    assert.throws(() => new spoke.Req(server.url), isCode("SPOKE_ENOTSUP"));
    if (kept !== undefined)
        globalThis.WebSocket = kept;
    assert.equal(await isSettled(server.peer()), false);
});

test("a body is text or bytes; times are numbers", async ({ open }) => {
    const push = open(spoke.Push);
    for (const body of [undefined, null, 1, {}, [1], new Blob(["x"])])
        await assert.rejects(push.send(body), isCode("SPOKE_EINVAL"));
    const pair = open(spoke.Pair, { sendQueue: 0 });
    for (const [timeout, code] of [["1", "SPOKE_ETYPE"], [-1, "SPOKE_ERANGE"], [2 ** 31, "SPOKE_ERANGE"]])
        await assert.rejects(pair.receive({ timeout }), isCode(code));
    assert.throws(() => pair.close({ linger: -1 }), isCode("SPOKE_ERANGE"));
});

test("http and https URLs stand for ws and wss", async ({ server, open }) => {
    open(spoke.Req, {}, server.url.replace("ws:", "http:"));
    await server.peer();
});

test("every error has a text of its own", () => {
    for (const code of ["SPOKE_EOF", "SPOKE_ETIMEDOUT", "SPOKE_ELIMIT"])
        assert.match(new spoke.SpokeError(code).message, /^[a-z].*[a-z]$/);
    assert.match(new spoke.SpokeError("SPOKE_EURL", "x").message, /: x$/);
});

// ---- sending ----

test("a send waits for room, in order; a timeout or an abort takes it out again", async ({ open }) => {
    const address = freeAddress();
    const push = open(spoke.Push, { sendQueue: 2 }, `ws://${address}/`);
    await push.send("1");
    await push.send("2");
    await assert.rejects(push.send("never", { timeout: 0 }), isCode("SPOKE_EAGAIN"));
    const controller = new AbortController();
    const aborted = push.send("never", { signal: controller.signal });
    const late = push.send("never", { timeout: 5 });
    const third = push.send("3", wait);
    controller.abort();
    await assert.rejects(aborted, { name: "AbortError" });
    await assert.rejects(late, isCode("SPOKE_ETIMEDOUT"));
    assert.equal(push.stats.messagesSent, 2);
    const server = await Server.listen(address);
    await third;
    const there = await server.peer();
    for (const body of ["1", "2", "3"])
        assert.equal(String(await there.receive()), body);
    await push.close();
    await server.close();
});

test("with a queue of none a send waits for a peer", async ({ server, open }) => {
    const push = open(spoke.Push, { sendQueue: 0 }, nowhere());
    await assert.rejects(push.send("x", { timeout: 5 }), isCode("SPOKE_ETIMEDOUT"));
    const other = open(spoke.Push, { sendQueue: 0 });
    await other.send("y", wait);
    assert.equal(String(await (await server.peer()).receive()), "y");
});

test("the send queue is bounded in bytes, and one message always fits", async ({ open }) => {
    const push = open(spoke.Push, { sendQueueBytes: 10 }, nowhere());
    await push.send("x".repeat(20));
    await assert.rejects(push.send("y", { timeout: 0 }), isCode("SPOKE_EAGAIN"));
});

test("no more than 1024 wait at once", async ({ open }) => {
    const push = open(spoke.Push, { sendQueue: 0 }, nowhere());
    const sends = Array.from({ length: 1025 }, () => push.send("x"));
    await assert.rejects(sends.pop(), isCode("SPOKE_ELIMIT"));
    const failed = Promise.all(sends.map((send) => assert.rejects(send, isCode("SPOKE_ECLOSED"))));
    await push.close();
    await failed;
});

test("a peer that does not read holds up a Push, and nothing is lost or mixed up", async ({ server, open }) => {
    const push = open(spoke.Push, { sendQueue: 4 });
    const there = await server.peer();
    await push.connected(wait);
    there.ws.pause();
    const body = new Uint8Array(1 << 20);
    let sent = 0;
    for (;; sent++) { // the kernel takes some, the WebSocket a little, the queue four
        body[0] = sent;
        try {
            await push.send(body, { timeout: 200 });
        } catch (error) {
            assert.equal(error.code, "SPOKE_ETIMEDOUT");
            break;
        }
        assert.ok(sent < 100);
    }
    there.ws.resume();
    for (let i = 0; i < sent; i++)
        assert.equal((await there.receive())[0], i);
    assert.deepEqual(await push.close({ linger: 30_000 }), { messages: 0, bytes: 0 });
    assert.equal(there.unread, 0);
});

test("a subscriber that does not read loses the newest, others do not", async ({ server, open }) => {
    const pub = open(spoke.Pub, { sendQueue: 2 }, [`${server.url}1`, `${server.url}2`]);
    const there = [await server.peer(), await server.peer()];
    await until(() => pub.peers === 2);
    there[0].ws.pause();
    const body = new Uint8Array(1 << 20);
    let sent = 0;
    for (; pub.stats.droppedPeerFull === 0; sent++) {
        assert.ok(sent < 100);
        body[0] = sent;
        await pub.send(body);
        assert.equal((await there[1].receive())[0], sent);
    }
    there[0].ws.resume();
    for (let i = 0; i < sent - 1; i++)
        assert.equal((await there[0].receive())[0], i);
});

test("a Push takes turns among its peers", async ({ server, open }) => {
    const push = open(spoke.Push, {}, [`${server.url}1`, `${server.url}2`]);
    const there = [await server.peer(), await server.peer()];
    await until(() => push.peers === 2);
    for (let i = 0; i < 6; i++)
        await push.send(String(i));
    for (const peer of there) {
        const got = [];
        for (let i = 0; i < 3; i++)
            got.push(Number(await peer.receive()));
        assert.ok(got[1] === got[0] + 2 && got[2] === got[1] + 2);
    }
});

// ---- receiving ----

test("a Pull whose queue is full ends the connection until half of it is read", async ({ server, open }) => {
    const pull = open(spoke.Pull, { recvQueue: 4 });
    const first = await server.peer();
    for (let i = 0; i < 6; i++)
        first.send(String(i));
    assert.deepEqual(await first.closed, { code: 4000, reason: "SPOKE_ELIMIT" });
    assert.equal(pull.stats.disconnectedFull, 1);
    const next = server.peer();
    assert.equal(await isSettled(next), false);
    for (let i = 0; i < 4; i++)
        assert.equal(text(await pull.receive(wait)), String(i));
    (await next).send("later");
    assert.equal(text(await pull.receive(wait)), "later");
});

test("receives take turns, and one that has been given up takes nothing", async ({ server, open }) => {
    const pull = open(spoke.Pull);
    const there = await server.peer();
    const controller = new AbortController();
    const receives = [pull.receive(wait), pull.receive({ signal: controller.signal }), pull.receive(wait)];
    controller.abort(new Error("enough"));
    await assert.rejects(receives[1], /enough/);
    await assert.rejects(pull.receive({ signal: controller.signal }), /enough/);
    await assert.rejects(pull.receive({ timeout: 0 }), isCode("SPOKE_EAGAIN"));
    there.send("1");
    there.send("2");
    assert.equal(text(await receives[0]), "1");
    assert.equal(text(await receives[2]), "2");
    there.send("3");
    await until(async () => (await pull.receive({ timeout: 0 }).catch(() => null)) !== null);
});

test("iteration ends with the socket, fails with a signal, and can go on", async ({ server, open }) => {
    const pull = open(spoke.Pull);
    const there = await server.peer();
    const controller = new AbortController();
    for (const body of ["1", "2", "3"])
        there.send(body);
    for await (const body of pull) {
        assert.equal(text(body), "1");
        break;
    }
    const got = [];
    await assert.rejects(async () => {
        for await (const body of pull.messages({ signal: controller.signal }))
            if (got.push(text(body)) === 2)
                controller.abort();
    }, { name: "AbortError" });
    assert.deepEqual(got, ["2", "3"]);
    const iterating = (async () => {
        for await (const body of pull)
            assert.fail(text(body));
    })();
    await pull.close();
    await iterating;
});

// ---- connecting ----

test("waits between attempts grow up to the most, and end with a connection", async ({ open }) => {
    const { setTimeout } = globalThis;
    const { random } = Math;
    const address = freeAddress();
    const waits = [];
    let last;
    // What is told of a failed attempt comes right behind the timer that was set for the next one.
    globalThis.setTimeout = (run, time, ...rest) => setTimeout(run, last = time, ...rest);
    Math.random = () => 1; // the limit itself, as no random number is greater
    const req = open(spoke.Req, { reconnectTime: 10, reconnectTimeMax: 60 }, `ws://${address}/`);
    try {
        req.addEventListener("dialfailed", ({ reason }) => {
            assert.equal(reason, "SPOKE_ECONNREFUSED");
            waits.push(last);
        });
        await until(() => waits.length >= 6);
    } finally {
        globalThis.setTimeout = setTimeout;
        Math.random = random;
    }
    assert.deepEqual(waits.slice(0, 6), [20, 40, 60, 60, 60, 60]);
    const server = await Server.listen(address);
    await req.connected(wait);
    assert.equal(req.peers, 1);
    await req.close();
    await server.close();
});

test("what an attempt comes to is told, and connections come and go", async ({ server, open }) => {
    const req = open(spoke.Req);
    const events = [];
    for (const type of ["attached", "detached", "dialfailed"])
        req.addEventListener(type, ({ url, reason }) => events.push([type, url, reason]));
    (await server.peer()).ws.close(1000);
    (await server.peer()).ws.terminate();
    await server.peer();
    await until(() => req.peers === 1);
    await req.close();
    assert.deepEqual(events, [
        ["attached", server.url, null], ["detached", server.url, "SPOKE_EOF"],
        ["attached", server.url, null], ["detached", server.url, "SPOKE_ECONNRESET"],
        ["attached", server.url, null], ["detached", server.url, "SPOKE_ECLOSED"],
    ]);
});

test("a server that says nothing is given up", async ({ open }) => {
    const silent = createServer().listen(0, "127.0.0.1");
    const connections = [];
    silent.on("connection", (connection) => connections.push(connection.on("error", () => {})));
    await once(silent, "listening");
    const req = open(spoke.Req, { handshakeTime: 20 }, `ws://127.0.0.1:${silent.address().port}/`);
    assert.equal((await eventOf(req, "dialfailed")).reason, "SPOKE_ETIMEDOUT");
    await until(() => req.stats.dialsFailed >= 2);
    await req.close();
    connections.forEach((connection) => connection.destroy());
    silent.close();
});

// A WebSocket class that shows what no server can make the real ones do.
class Stand extends EventTarget {
    static made = [];
    protocol = "";
    readyState = 0;
    bufferedAmount = 0;

    constructor() {
        super();
        Stand.made.push(this);
    }

    open() {
        this.readyState = 1;
        this.onopen();
    }

    close(...how) {
        this.how = how;
        this.readyState = 3;
        queueMicrotask(() => this.dispatchEvent(new Event("close")));
    }
}

test("a server that does not name our subprotocol is no peer", async ({ open }) => {
    const req = open(spoke.Req, { WebSocket: Stand });
    await until(() => Stand.made.length === 1);
    const failed = eventOf(req, "dialfailed");
    Stand.made[0].open();
    assert.equal((await failed).reason, "SPOKE_EPEER");
    assert.deepEqual(Stand.made[0].how, [4000, "SPOKE_EPEER"]);
    await until(() => Stand.made.length === 2);
});

test("where the class refuses to connect, that is a failed attempt", async ({ open }) => {
    const req = open(spoke.Req, { WebSocket: class { constructor() { throw new Error("no"); } } });
    assert.equal((await eventOf(req, "dialfailed")).reason, "SPOKE_EACCES");
    await until(() => req.stats.dialsFailed >= 2);
});

test("a Pair has one peer; another takes over when that leaves", async ({ server, open }) => {
    const pair = open(spoke.Pair, {}, [`${server.url}1`, `${server.url}2`]);
    const there = [await server.peer(), await server.peer()];
    assert.equal((await there[1].closed).reason, "SPOKE_EREFUSED");
    assert.equal(pair.peers, 1);
    there[0].send("from the first");
    assert.equal(text(await pair.receive(wait)), "from the first");
    assert.ok(pair.stats.refused >= 1);
    await pair.send("to the first");
    assert.equal(String(await there[0].receive()), "to the first");
    const attached = eventOf(pair, "attached");
    there[0].ws.close(1000);
    await attached;
    assert.equal(pair.peers, 1);
});

test("connected() waits for a peer, within limits", async ({ server, open }) => {
    const alone = open(spoke.Pub, {}, nowhere());
    await assert.rejects(alone.connected({ timeout: 5 }), isCode("SPOKE_ETIMEDOUT"));
    await assert.rejects(alone.connected({ timeout: 0 }), isCode("SPOKE_EAGAIN"));
    await assert.rejects(alone.connected({ signal: AbortSignal.abort() }), { name: "AbortError" });
    const waiting = assert.rejects(alone.connected(), isCode("SPOKE_ECLOSED"));
    await alone.close();
    await waiting;
    const pub = open(spoke.Pub);
    await pub.connected(wait);
    await pub.connected({ timeout: 0 });
    await server.peer();
});

// ---- closing ----

test("close() ends all who wait, and everything after it", async ({ server, open }) => {
    const pair = open(spoke.Pair, { sendQueue: 0 }, nowhere());
    const failed = [pair.send("x"), pair.receive(), pair.connected()].map(
        (promise) => assert.rejects(promise, isCode("SPOKE_ECLOSED")));
    const closing = pair.close();
    assert.equal(pair.close(), closing);
    await Promise.all([...failed, closing]);
    for (const call of [() => pair.send("x"), () => pair.receive(), () => pair.connected()])
        await assert.rejects(call(), isCode("SPOKE_ECLOSED"));
    const sub = open(spoke.Sub, { topics: [""] });
    (await server.peer()).send("unread");
    await until(() => sub.peers === 1);
    await sub.close();
    await assert.rejects(sub.receive(), isCode("SPOKE_ECLOSED"));
    assert.throws(() => sub.subscribe("x"), isCode("SPOKE_ECLOSED"));
    const surveyor = open(spoke.Surveyor);
    await surveyor.close();
    assert.throws(() => surveyor.survey("x"), isCode("SPOKE_ECLOSED"));
    const rep = open(spoke.Rep, {}, `${server.url}rep`);
    const there = await until(async () => {
        const peer = await server.peer();
        return peer.path === "/rep" ? peer : null;
    });
    there.send(0x80000001, "q");
    const question = await rep.receive(wait);
    await rep.close();
    await assert.rejects(question.reply("x"), isCode("SPOKE_ECLOSED"));
});

test("close() before anything has begun dials nobody", async ({ server, open }) => {
    await open(spoke.Req).close();
    assert.equal(await isSettled(server.peer()), false);
});

test("close() ends a connection in the way that the protocol has", async ({ server, open }) => {
    const req = open(spoke.Req);
    const there = await server.peer();
    await req.connected(wait);
    await req.close();
    assert.equal((await there.closed).code, 1000);
});

test("close() waits at most linger for what has been sent, and says what is left", async ({ open }) => {
    const address = freeAddress();
    const url = `ws://${address}/`;
    const lost = open(spoke.Push, {}, url);
    await lost.send("12345");
    await lost.send("678");
    assert.deepEqual(await lost.close({ linger: 20 }), { messages: 2, bytes: 8 });
    const push = open(spoke.Push, {}, url);
    await push.send("in time");
    const closing = push.close({ linger: 30_000 });
    const server = await Server.listen(address);
    assert.deepEqual(await closing, { messages: 0, bytes: 0 });
    assert.equal(String(await (await server.peer()).receive()), "in time");
    await server.close();
});

test("close() does not wait for ever for a peer that does not answer it", async ({ server, open }) => {
    const req = open(spoke.Req);
    const there = await server.peer();
    await req.connected(wait);
    there.ws.pause();
    const late = holdTimer(1000);
    const closing = req.close();
    await Promise.resolve();
    late.fire();
    await closing;
});
