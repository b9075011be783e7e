// SPDX-License-Identifier: MIT
// spoke and node-ws, a peer of RFC 6455 that knows nothing of patterns: its client at a PAIR of ours that listens, its
// server under one that dials, over ws and wss.  Ours sends back what it gets.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Program } from "./peers.mjs";
import { ClientOfNodeWs as Client, WebSocketServer } from "./websocket.mjs";

const protocol = "pair.sp.nanomsg.org";
const limit = { timeout: 60_000 };
const sizes = [0, 1, 125, 126, 65535, 65536, 1024 * 1024];
const pattern = (size) => Buffer.alloc(size, "what comes goes back. ");
const codes = [1000, 1001, 1011, 3000, 4999];

// ---- what both ends of node-ws have ----

const messages = (ws) => {
    const come = [];
    let wake = () => {};
    ws.on("message", (data) => { come.push(data); wake(); });
    return async () => {
        while (come.length === 0)
            await new Promise((resolve) => { wake = resolve; });
        return come.shift();
    };
};
const closing = async (ws) => {
    const [code, reason] = await once(ws, "close");
    return { code, reason: String(reason) };
};

// Everything that a peer may say, answered with itself.
async function converse(ws) {
    const next = messages(ws);
    for (const size of sizes) {
        ws.send(pattern(size));
        assert.deepEqual(await next(), pattern(size), `${size} bytes`);
    }
    // In fragments, of which some are empty, with a ping between two.
    const parts = [pattern(10), pattern(0), pattern(70000), pattern(0), pattern(300), pattern(1)];
    const pong = once(ws, "pong");
    for (const [i, part] of parts.entries()) {
        ws.send(part, { fin: i === parts.length - 1 });
        if (i === 2)
            ws.ping("within");
    }
    assert.equal(String((await pong)[0]), "within");
    assert.deepEqual(await next(), Buffer.concat(parts));
    for (const payload of ["", "ping", "x".repeat(125)]) {
        const answered = once(ws, "pong");
        ws.ping(payload);
        assert.equal(String((await answered)[0]), payload);
    }
    ws.pong("nobody asked");
    ws.send("once more", { binary: true });
    assert.equal(String(await next()), "once more");
}

// ---- certificates ----

const directory = mkdtempSync(join(tmpdir(), "spoke-js-"));
after(() => rmSync(directory, { recursive: true }));
const file = (name) => join(directory, name);
const openssl = (...args) => execFileSync("openssl", args, { cwd: directory, stdio: "ignore" });
const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
for (const ca of ["ca", "other"])
    openssl("req", "-x509", ...key, "-keyout", `${ca}.key`, "-out", `${ca}.pem`, "-days", "2", "-subj", `/CN=${ca}`);
openssl("req", ...key, "-keyout", "cert.key", "-out", "cert.csr", "-subj", "/CN=localhost");
writeFileSync(file("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1");
openssl("x509", "-req", "-in", "cert.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
    "-out", "cert.pem", "-extfile", "names");
writeFileSync(file("both.pem"), readFileSync(file("cert.pem")) + readFileSync(file("cert.key")));

// ---- its client, our listener ----

async function listener(t, scheme = "ws", ...files) {
    const program = new Program(process.env.JS_PEER, ["pair", `${scheme}://127.0.0.1:0/test`, "listen", ...files]);
    t.after(() => program.kill());
    return { program, url: (await program.first(1))[0] };
}

async function connect(t, url, protocols = protocol, options = {}) {
    const ws = new Client(url, protocols, options);
    t.after(() => ws.terminate());
    ws.on("error", () => {}); // "close" follows
    await once(ws, "open");
    return ws;
}

// The answer to an upgrade that is refused.
async function refusal(t, url, protocols, options = {}) {
    const ws = new Client(url, protocols, options);
    t.after(() => ws.terminate());
    ws.on("error", () => {});
    const [, response] = await once(ws, "unexpected-response");
    return response.statusCode;
}

test("listener: messages, fragments and pings", limit, async (t) => {
    const ws = await connect(t, (await listener(t)).url);
    assert.equal(ws.protocol, protocol);
    await converse(ws);
});

test("listener: its protocol is chosen among others; others alone, none, and other paths and versions are refused",
    limit, async (t) => {
        const { url } = await listener(t);
        const ws = await connect(t, url, ["graphql-ws", protocol, "chat"]);
        assert.equal(ws.protocol, protocol);
        assert.equal(await refusal(t, url, "pull.sp.nanomsg.org"), 400);
        assert.equal(await refusal(t, url, []), 400);
        assert.equal(await refusal(t, `${url}/below`, protocol), 404);
        assert.equal(await refusal(t, url, protocol, { protocolVersion: 8 }), 426);
        await converse(ws);
    });

test("listener: compression is offered and not taken", limit, async (t) => {
    const ws = await connect(t, (await listener(t)).url, protocol, { perMessageDeflate: { threshold: 0 } });
    assert.equal(ws.extensions, "");
    await converse(ws);
});

test("listener: a close is answered with its code", limit, async (t) => {
    const { url } = await listener(t);
    for (const code of [...codes, undefined]) {
        const ws = await connect(t, url);
        const closed = closing(ws);
        ws.close(code, code && "that is all");
        assert.equal((await closed).code, code ?? 1005);
    }
});

test("listener: it says why it closes", limit, async (t) => {
    const { url, program } = await listener(t);
    const closed = async (act) => {
        const ws = await connect(t, url);
        const end = closing(ws);
        act(ws);
        return (await end).code;
    };
    assert.equal(await closed((ws) => ws.send("text")), 1003);
    assert.equal(await closed((ws) => ws.send(pattern(1024 * 1024 + 1))), 1009);
    assert.equal(await closed((ws) => ws.send(pattern(1024 * 1024), { fin: false }, () => ws.send("x", { fin: true, binary: true }))), 1009);
    assert.equal(await closed(() => program.child.stdin.end()), 1001);
});

test("listener: wss with a private authority", limit, async (t) => {
    const { url } = await listener(t, "wss", "-", file("both.pem"));
    const ca = readFileSync(file("ca.pem"));
    const ws = await connect(t, url, protocol, { ca });
    await converse(ws);
    ws.close(); // a PAIR has one at a time
    await closing(ws);
    for (const [options, code] of [
        [{}, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"], [{ ca: readFileSync(file("other.pem")) }, "UNABLE_TO_VERIFY_LEAF_SIGNATURE"],
        [{ ca, servername: "other.test" }, "ERR_TLS_CERT_ALTNAME_INVALID"],
    ])
        await assert.rejects(connect(t, url, protocol, options), { code });
    await converse(await connect(t, url, protocol, { ca }));
});

// ---- our dialer, its server ----

// What comes to a server, one connection after the other.
async function serve(t, options = {}, port = 0) {
    const server = options.server ?? new WebSocketServer({ host: "127.0.0.1", port, ...options });
    const wss = options.server ? new WebSocketServer(options) : server;
    const waiting = [], come = [];
    wss.on("connection", (ws, request) => {
        ws.on("error", () => {});
        if (waiting.length > 0)
            waiting.shift()({ ws, request });
        else
            come.push({ ws, request });
    });
    if (options.server)
        server.listen(0, "127.0.0.1");
    await once(server, "listening");
    t.after(() => {
        wss.clients.forEach((ws) => ws.terminate());
        server.close();
    });
    return { wss, port: server.address().port, next: () => come.shift() ?? new Promise((resolve) => waiting.push(resolve)) };
}

// Why a handshake fails.  What a peer says at its end is lost where the kernel resets the connection; it comes again.
async function firstWord(server) {
    for (;;) {
        const [{ code }] = await once(server, "tlsClientError");
        if (code !== "ECONNRESET")
            return code;
    }
}

function dial(t, url, ...files) {
    const program = new Program(process.env.JS_PEER, ["pair", url, "dial", ...files]);
    t.after(() => program.kill());
    return program;
}

test("dialer: messages, fragments and pings; what it asks for", limit, async (t) => {
    const { port, next } = await serve(t, { perMessageDeflate: { threshold: 0 } });
    dial(t, `ws://127.0.0.1:${port}/some/path?query`);
    const { ws, request } = await next();
    assert.equal(request.url, "/some/path?query");
    assert.equal(request.headers.host, `127.0.0.1:${port}`);
    assert.equal(request.headers["sec-websocket-protocol"], protocol);
    assert.equal(request.headers["sec-websocket-extensions"], undefined);
    assert.equal(ws.extensions, "");
    await converse(ws);
});

test("dialer: a close is answered with its code, and it comes back", limit, async (t) => {
    const { port, next } = await serve(t);
    dial(t, `ws://127.0.0.1:${port}/`);
    for (const code of [...codes, undefined]) {
        const { ws } = await next();
        const closed = closing(ws);
        ws.close(code, code && "that is all");
        assert.equal((await closed).code, code ?? 1005);
    }
    await converse((await next()).ws);
});

test("dialer: it says why it closes", limit, async (t) => {
    const { port, next } = await serve(t);
    const program = dial(t, `ws://127.0.0.1:${port}/`);
    for (const [code, act] of [
        [1003, (ws) => ws.send("text")], [1009, (ws) => ws.send(pattern(1024 * 1024 + 1))],
        [1002, (ws) => { ws._socket.write(Buffer.from([0xf2, 0])); }], // reserved bits
        [1000, () => program.child.stdin.end()],
    ]) {
        const { ws } = await next();
        const closed = closing(ws);
        ws.send("are you there?", { binary: true });
        await messages(ws)();
        act(ws);
        assert.equal((await closed).code, code);
    }
});

test("dialer: a server that agrees on another protocol, or on none, is no peer", limit, async (t) => {
    let answer;
    const { port, next } = await serve(t, { handleProtocols: () => answer });
    answer = false;
    dial(t, `ws://127.0.0.1:${port}/`);
    for (answer of [false, "pull.sp.nanomsg.org", protocol]) {
        let peer;
        do
            peer = await next();
        while (peer.ws.protocol !== (answer || ""));
        if (answer === protocol)
            await converse(peer.ws);
        else
            assert.equal((await closing(peer.ws)).code, 1006);
    }
});

test("dialer: wss with a private authority", limit, async (t) => {
    const tls = () => createServer({ cert: readFileSync(file("cert.pem")), key: readFileSync(file("cert.key")) });
    const good = await serve(t, { server: tls() });
    dial(t, `wss://localhost:${good.port}/`, file("ca.pem"));
    const { ws, request } = await good.next();
    assert.equal(request.socket.servername, "localhost");
    await converse(ws);
    const server = tls();
    const bad = await serve(t, { server });
    const refused = firstWord(server);
    dial(t, `wss://localhost:${bad.port}/`, file("other.pem"));
    assert.equal(await refused, "ERR_SSL_TLSV1_ALERT_UNKNOWN_CA");
    assert.equal(bad.wss.clients.size, 0);
});

test("dialer: a client's certificate where it is wanted", limit, async (t) => {
    const server = createServer({ cert: readFileSync(file("cert.pem")), key: readFileSync(file("cert.key")),
        ca: readFileSync(file("ca.pem")), requestCert: true, rejectUnauthorized: true });
    const { port, next } = await serve(t, { server });
    const refused = firstWord(server);
    const without = dial(t, `wss://localhost:${port}/`, file("ca.pem"));
    assert.equal(await refused, "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE");
    await without.kill();
    dial(t, `wss://localhost:${port}/`, file("ca.pem"), file("both.pem"));
    const { ws, request } = await next();
    assert.equal(request.socket.getPeerCertificate().subject.CN, "localhost");
    await converse(ws);
});
