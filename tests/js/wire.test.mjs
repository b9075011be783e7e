// SPDX-License-Identifier: MIT
// What each pattern sends and makes of what it gets, byte by byte, with a server that says anything.
import assert from "node:assert/strict";
import * as spoke from "../../clients/js/spoke.js";
import { eventOf, holdTimer, isCode, test, wait } from "./fixture.mjs";
import { until } from "./scenarios.mjs";
import { bytes } from "./server.mjs";

const { text } = spoke;

// ---- the handshake ----

for (const [name, peer] of Object.entries({
    Req: "rep", Rep: "req", Pub: "sub", Sub: "pub", Push: "pull", Pull: "push", Pair: "pair",
    Pair1: "pair1", Bus: "bus", Surveyor: "respondent", Respondent: "surveyor",
})) {
    test(`${name} asks for ${peer}.sp.nanomsg.org`, async ({ server, open }) => {
        open(spoke[name], {}, `${server.url}some/path?query#fragment`);
        const there = await server.peer();
        assert.equal(there.protocol, `${peer}.sp.nanomsg.org`);
        assert.equal(there.path, "/some/path?query");
    });
}

// ---- headers ----

test("Push, Pub, Pair and Bus send the body alone, Pair1 a hop before it", async ({ server, open }) => {
    for (const name of ["Push", "Pub", "Pair", "Bus", "Pair1"]) {
        const socket = open(spoke[name]);
        const there = await server.peer();
        await socket.connected(wait);
        for (const body of ["text", new Uint8Array([1, 2, 3]), new Uint8Array([9, 4, 5]).subarray(1),
            new Uint16Array([0x0607]).buffer, new DataView(new ArrayBuffer(2)), ""]) {
            await socket.send(body);
            const wanted = typeof body === "string" ? Buffer.from(body)
                : Buffer.from(body.buffer ?? body, body.byteOffset, body.byteLength);
            assert.deepEqual(await there.receive(), bytes(...(name === "Pair1" ? [1] : []), wanted));
        }
    }
});

test("a body may be changed once it has been sent", async ({ server, open }) => {
    const push = open(spoke.Push);
    const body = new Uint8Array([1, 2, 3]);
    await push.send(body);
    body.fill(0);
    assert.deepEqual(await (await server.peer()).receive(), Buffer.from([1, 2, 3]));
});

test("Pair1 counts hops: too many are dropped, what is no count ends the connection", async ({ server, open }) => {
    const pair = open(spoke.Pair1);
    let there = await server.peer();
    there.send(9, "dropped");
    there.send(8, "taken");
    assert.equal(text(await pair.receive(wait)), "taken");
    assert.equal(pair.stats.droppedTtl, 1);
    for (const bad of [bytes(256, "x"), bytes("abc"), bytes("")]) {
        const detached = eventOf(pair, "detached");
        there.send(bad);
        assert.equal((await detached).reason, "SPOKE_EPROTO");
        there = await server.peer();
    }
    assert.equal(pair.stats.garbled, 3);
});

// ---- REQ ----

test("Req: ids have the top bit and count on; replies in any order find their request", async ({ server, open }) => {
    const req = open(spoke.Req);
    const replies = ["a", "b", "c"].map((body) => req.request(body, wait));
    const there = await server.peer();
    const sent = [await there.receive(), await there.receive(), await there.receive()];
    const ids = sent.map((message) => message.readUInt32BE());
    assert.deepEqual(sent.map((message) => String(message.subarray(4))), ["a", "b", "c"]);
    assert.ok(ids.every((id) => id >= 0x80000000));
    assert.equal(((ids[1] - ids[0]) & 0x7fffffff), 1);
    assert.equal(((ids[2] - ids[1]) & 0x7fffffff), 1);
    for (const i of [2, 0, 1])
        there.send(ids[i], `reply ${i}`);
    assert.deepEqual((await Promise.all(replies)).map(text), ["reply 0", "reply 1", "reply 2"]);
});

test("Req: strange, late and second replies are dropped", async ({ server, open }) => {
    const req = open(spoke.Req);
    const reply = req.request("q", wait);
    const there = await server.peer();
    const id = (await there.receive()).readUInt32BE();
    there.send(id ^ 1, "another's");
    there.send(id & 0x7fffffff, "no id");
    there.send(7, id, "a word too many");
    there.send(id, "right");
    there.send(id, "again");
    assert.equal(text(await reply), "right");
    await until(() => req.stats.droppedStale === 4);
    assert.equal(req.peers, 1);
});

test("Req: a reply that is shorter than an id ends the connection", async ({ server, open }) => {
    const req = open(spoke.Req);
    const detached = eventOf(req, "detached");
    const there = await server.peer();
    there.send("abc");
    assert.equal((await detached).reason, "SPOKE_EPROTO");
    assert.equal(req.stats.garbled, 1);
    assert.deepEqual(await there.closed, { code: 4000, reason: "SPOKE_EPROTO" });
});

test("Req: sends the same bytes again when the connection is lost", async ({ server, open }) => {
    const req = open(spoke.Req);
    const reply = req.request("q", wait);
    const first = await server.peer();
    const message = await first.receive();
    first.ws.terminate();
    const second = await server.peer();
    assert.deepEqual(await second.receive(), message);
    second.send(message.subarray(0, 4), "reply");
    assert.equal(text(await reply), "reply");
    assert.equal(req.stats.retries, 1);
});

test("Req: with retryTime 0 a lost connection is an error", async ({ server, open }) => {
    const req = open(spoke.Req, { retryTime: 0 });
    const reply = req.request("q", wait);
    const there = await server.peer();
    await there.receive();
    there.ws.terminate();
    await assert.rejects(reply, isCode("SPOKE_ECONNRESET"));
    assert.equal(req.stats.retries, 0);
});

test("Req: a silent peer's request goes to the next, the first reply counts", async ({ server, open }) => {
    const req = open(spoke.Req, {}, [`${server.url}1`, `${server.url}2`]);
    const there = [await server.peer(), await server.peer()];
    await until(() => req.peers === 2);
    const reply = req.request("q", { retryTime: 20, ...wait });
    const messages = await Promise.all(there.map((peer) => peer.receive()));
    assert.deepEqual(messages[0], messages[1]);
    there[1].send(messages[1].subarray(0, 4), "reply");
    assert.equal(text(await reply), "reply");
});

test("Req: requests take turns among peers", async ({ server, open }) => {
    const req = open(spoke.Req, {}, [`${server.url}1`, `${server.url}2`]);
    const there = [await server.peer(), await server.peer()];
    await until(() => req.peers === 2);
    for (let i = 0; i < 4; i++)
        req.request("q").catch(() => {}); // fails when the socket is closed
    for (const peer of [...there, ...there])
        await peer.receive();
    assert.deepEqual(there.map((peer) => peer.unread), [0, 0]);
});

test("Req: aborted, timed out, too many; what has been given up leaves nothing behind", async ({ server, open }) => {
    const req = open(spoke.Req);
    const there = await server.peer();
    const controller = new AbortController();
    const aborted = req.request("q", { signal: controller.signal });
    const id = (await there.receive()).readUInt32BE();
    controller.abort();
    await assert.rejects(aborted, { name: "AbortError" });
    there.send(id, "late");
    await until(() => req.stats.droppedStale === 1);
    await assert.rejects(req.request("q", { signal: controller.signal }), { name: "AbortError" });
    await assert.rejects(req.request("q", { timeout: 5 }), isCode("SPOKE_ETIMEDOUT"));
    await assert.rejects(req.request("q", { timeout: 0 }), isCode("SPOKE_EAGAIN"));
    const many = Array.from({ length: 1025 }, () => req.request("q", wait));
    await assert.rejects(many.pop(), isCode("SPOKE_ELIMIT"));
    const closing = Promise.all(many.map((one) => assert.rejects(one, isCode("SPOKE_ECLOSED"))));
    await req.close();
    await closing;
    await assert.rejects(req.request("q"), isCode("SPOKE_ECLOSED"));
});

// ---- REP, RESPONDENT ----

for (const name of ["Rep", "Respondent"]) {
    test(`${name}: the way back leads each answer, in any order`, async ({ server, open }) => {
        const rep = open(spoke[name]);
        const there = await server.peer();
        there.send(1, 2, 0x80000003, "first");
        there.send(0x80000004, "second");
        const [first, second] = [await rep.receive(wait), await rep.receive(wait)];
        assert.deepEqual([text(first.body), text(second.body)], ["first", "second"]);
        await second.reply("2");
        await first.reply("1");
        await assert.rejects(first.reply("again"), isCode("SPOKE_ESTATE"));
        assert.deepEqual(await there.receive(), bytes(0x80000004, "2"));
        assert.deepEqual(await there.receive(), bytes(1, 2, 0x80000003, "1"));
    });

    test(`${name}: eight words pass, nine do not, none at all ends the connection`, async ({ server, open }) => {
        const rep = open(spoke[name]);
        const there = await server.peer();
        const detached = eventOf(rep, "detached");
        there.send(1, 2, 3, 4, 5, 6, 7, 8, 0x80000009, "nine");
        there.send(1, 2, 3, 4, 5, 6, 7, 0x80000008, "eight");
        assert.equal(text((await rep.receive(wait)).body), "eight");
        assert.equal(rep.stats.droppedTtl, 1);
        there.send(1, 2, "abc");
        assert.equal((await detached).reason, "SPOKE_EPROTO");
    });

    test(`${name}: an answer to who is gone is dropped`, async ({ server, open }) => {
        const rep = open(spoke[name]);
        const there = await server.peer();
        there.send(0x80000001, "q");
        const question = await rep.receive(wait);
        there.ws.terminate();
        await server.peer();
        await question.reply("too late");
        assert.equal(rep.stats.droppedNoPeer, 1);
    });
}

// ---- SURVEYOR ----

async function collect(survey) {
    const got = [];
    for await (const answer of survey)
        got.push(text(answer));
    return got;
}

test("Surveyor: a survey to all, answers until its time is up, later ones are dropped", async ({ server, open }) => {
    const surveyor = open(spoke.Surveyor, {}, [`${server.url}1`, `${server.url}2`]);
    const there = [await server.peer(), await server.peer()];
    await until(() => surveyor.peers === 2);
    const deadline = holdTimer(12_345);
    const survey = surveyor.survey("who?", { time: 12_345 });
    const messages = await Promise.all(there.map((peer) => peer.receive()));
    assert.deepEqual(messages[0], messages[1]);
    assert.ok(messages[0].readUInt32BE() >= 0x80000000);
    assert.equal(String(messages[0].subarray(4)), "who?");
    there[0].send(messages[0].subarray(0, 4), "me");
    there[0].send(5, "another survey's");
    there[1].send(messages[0].subarray(0, 4), "me too");
    await until(() => surveyor.stats.messagesReceived === 2 && surveyor.stats.droppedStale === 1);
    deadline.fire();
    assert.deepEqual((await collect(survey)).sort(), ["me", "me too"]);
    there[0].send(messages[0].subarray(0, 4), "late");
    await until(() => surveyor.stats.droppedStale === 2);
});

test("Surveyor: surveys at once do not mix; what came in time is there after the end", async ({ server, open }) => {
    const surveyor = open(spoke.Surveyor);
    const there = await server.peer();
    await surveyor.connected(wait);
    const deadline = holdTimer(12_345);
    const surveys = ["1", "2"].map((body) => surveyor.survey(body, { time: 12_345 }));
    const ids = [await there.receive(), await there.receive()].map((m) => m.subarray(0, 4));
    there.send(ids[1], "b");
    there.send(ids[0], "a");
    there.send(ids[0], "a again");
    await until(() => surveyor.stats.messagesReceived === 3);
    deadline.fire();
    assert.deepEqual(await collect(surveys[0]), ["a", "a again"]);
    assert.deepEqual(await collect(surveys[1]), ["b"]);
});

test("Surveyor: aborted, given up, closed; answers beyond the queue are dropped", async ({ server, open }) => {
    const surveyor = open(spoke.Surveyor, { recvQueue: 2 });
    const there = await server.peer();
    await surveyor.connected(wait);
    const controller = new AbortController();
    const aborted = collect(surveyor.survey("q", { time: 0, signal: controller.signal }));
    controller.abort();
    await assert.rejects(aborted, { name: "AbortError" });
    await there.receive();
    const survey = surveyor.survey("q", { time: 0 });
    const id = (await there.receive()).subarray(0, 4);
    for (let i = 0; i < 5; i++)
        there.send(id, String(i));
    await until(() => surveyor.stats.droppedRecvFull === 3);
    for await (const answer of survey) {
        assert.equal(text(answer), "0");
        break;
    }
    there.send(id, "given up");
    await until(() => surveyor.stats.droppedStale === 1);
    const closed = assert.rejects(collect(surveyor.survey("q", { time: 0 })), isCode("SPOKE_ECLOSED"));
    await surveyor.close();
    await closed;
});

// ---- SUB ----

test("Sub: prefixes of bytes, none is nothing, the empty one is everything", async ({ server, open }) => {
    const sub = open(spoke.Sub);
    const there = await server.peer();
    there.send("nobody wants this");
    await until(() => sub.stats.droppedUnwanted === 1);
    sub.subscribe(new Uint8Array([0xff, 0x00]));
    sub.subscribe("ab");
    sub.subscribe("ab");
    for (const body of [[0xff, 0x00, 1], [0xff], "a", "abc", "bab", ""])
        there.send(body);
    assert.deepEqual([...await sub.receive(wait)], [0xff, 0, 1]);
    assert.equal(text(await sub.receive(wait)), "abc");
    await until(() => sub.stats.droppedUnwanted === 5);
    sub.unsubscribe("ab"); // twice subscribed is once
    assert.throws(() => sub.unsubscribe("ab"), isCode("SPOKE_ENOENT"));
    sub.subscribe("");
    there.send("");
    assert.equal(text(await sub.receive(wait)), "");
});

test("Sub: unsubscribing takes also what has arrived", async ({ server, open }) => {
    const sub = open(spoke.Sub, { topics: ["a", "b"] });
    const there = await server.peer();
    for (const body of ["a1", "b1", "a2", "b2", "c"])
        there.send(body);
    await until(() => sub.stats.droppedUnwanted === 1);
    sub.unsubscribe("a");
    assert.equal(text(await sub.receive(wait)), "b1");
    assert.equal(text(await sub.receive(wait)), "b2");
    await assert.rejects(sub.receive({ timeout: 5 }), isCode("SPOKE_ETIMEDOUT"));
});

for (const [loss, kept] of [["newest", ["0", "1", "2"]], ["oldest", ["5", "6", "7"]]]) {
    test(`Sub: a full queue loses the ${loss}`, async ({ server, open }) => {
        const sub = open(spoke.Sub, { topics: [""], recvQueue: 3, loss });
        const there = await server.peer();
        for (let i = 0; i < 8; i++)
            there.send(String(i));
        await until(() => sub.stats.droppedRecvFull === 5);
        const got = [];
        for (let i = 0; i < 3; i++)
            got.push(text(await sub.receive()));
        assert.deepEqual(got, kept);
    });
}

test("the queue is bounded in bytes too, and one message always fits", async ({ server, open }) => {
    const sub = open(spoke.Sub, { topics: [""], recvQueueBytes: 10 });
    const there = await server.peer();
    there.send("x".repeat(20));
    there.send("y");
    await until(() => sub.stats.droppedRecvFull === 1);
    assert.equal((await sub.receive()).length, 20);
});

// ---- what a peer may not do ----

test("what a send-only socket gets is dropped", async ({ server, open }) => {
    for (const name of ["Push", "Pub"]) {
        const socket = open(spoke[name]);
        (await server.peer()).send("what?");
        await until(() => socket.stats.droppedUnwanted === 1);
        assert.equal(socket.peers, 1);
    }
});

test("a text message, and one that is too large, end the connection", async ({ server, open }) => {
    const pull = open(spoke.Pull, { maxRecvSize: 10 });
    const reasons = [];
    pull.addEventListener("detached", ({ reason }) => reasons.push(reason));
    const first = await server.peer();
    first.ws.send("text");
    assert.equal((await first.closed).code, 4000);
    const second = await server.peer();
    second.send("0123456789");
    assert.equal(text(await pull.receive(wait)), "0123456789");
    second.send("0123456789a");
    assert.equal((await second.closed).code, 4000);
    assert.deepEqual(reasons, ["SPOKE_EPROTO", "SPOKE_EMSGSIZE"]);
    assert.deepEqual([pull.stats.garbled, pull.stats.oversized], [1, 1]);
    await server.peer();
});
