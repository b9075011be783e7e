// SPDX-License-Identifier: MIT
// A server that sends and sees bare messages, and tests choose each byte of its answers.
import { once } from "node:events";
import { WebSocketServer } from "./websocket.mjs";

export const bytes = (...parts) => Buffer.concat(parts.map((part) =>
    typeof part === "number" ? word(part) : Buffer.from(part)));

function word(number) {
    const word = Buffer.alloc(4);
    word.writeUInt32BE(number >>> 0);
    return word;
}

// Things that come, for those who wait for the next one.
class Stream {
    #come = [];
    #waiting = [];

    put(thing) {
        if (this.#waiting.length > 0)
            this.#waiting.shift()(thing);
        else
            this.#come.push(thing);
    }

    next() {
        return this.#come.length > 0 ? Promise.resolve(this.#come.shift())
            : new Promise((resolve) => this.#waiting.push(resolve));
    }

    get count() {
        return this.#come.length;
    }
}

class Peer {
    #messages = new Stream();

    constructor(ws, request) {
        this.ws = ws;
        this.protocol = ws.protocol;
        this.path = request.url;
        this.closed = once(ws, "close").then(([code, reason]) => ({ code, reason: String(reason) }));
        ws.on("message", (data, isBinary) => this.#messages.put({ data, isBinary }));
        ws.on("error", () => {}); // "close" follows
    }

    get unread() {
        return this.#messages.count;
    }

    async receive() {
        const { data, isBinary } = await this.#messages.next();
        if (!isBinary)
            throw new Error("a text message");
        return data;
    }

    send(...parts) {
        this.ws.send(bytes(...parts));
    }
}

export class Server {
    #peers = new Stream();

    static async listen(address = "127.0.0.1:0") {
        const server = new Server();
        const [host, port] = address.split(":");

        server.wss = new WebSocketServer({ host, port: Number(port) });
        server.wss.on("connection", (ws, request) => server.#peers.put(new Peer(ws, request)));
        await once(server.wss, "listening");
        server.url = `ws://${host}:${server.wss.address().port}/`;
        return server;
    }

    peer() {
        return this.#peers.next();
    }

    async close() {
        for (const ws of this.wss.clients)
            ws.terminate();
        await new Promise((resolve) => this.wss.close(resolve));
    }
}
