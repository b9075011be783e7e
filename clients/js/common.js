// SPDX-License-Identifier: MIT
// What all parts of the client use: errors, bytes, promises that end, bounded queues, options.

export const TOP_BIT = 0x80000000;
export const WORD = 4;
export const WAITERS_MOST = 1024; // sends, receives or requests that wait on one socket at once
export const TIME_MOST = 2 ** 31 - 1; // what setTimeout() can do

// ---- errors, bytes, time ----

const TEXTS = {
    SPOKE_EOF: "the peer ended the connection",
    SPOKE_EINVAL: "invalid argument",
    SPOKE_EAGAIN: "would have to wait",
    SPOKE_ETIMEDOUT: "the time is up",
    SPOKE_ECLOSED: "this socket is closed",
    SPOKE_ESTATE: "not possible in the protocol's present state",
    SPOKE_ENOTSUP: "there is no WebSocket here: give its class as the option WebSocket",
    SPOKE_EOPTION: "no such option here",
    SPOKE_ETYPE: "the value is of another type",
    SPOKE_ERANGE: "value out of range",
    SPOKE_EURL: "malformed URL",
    SPOKE_ESCHEME: "the URL's scheme is none of ws, wss, http, https",
    SPOKE_ENOENT: "not subscribed",
    SPOKE_EACCES: "this page may not connect there",
    SPOKE_ECONNREFUSED: "no connection: nobody listens there, or the server refuses us",
    SPOKE_ECONNRESET: "the connection was lost",
    SPOKE_EPEER: "the peer speaks another protocol",
    SPOKE_EPROTO: "the peer broke the protocol",
    SPOKE_EMSGSIZE: "the message is too large",
    SPOKE_EREFUSED: "the connection was turned away: there is a peer already",
    SPOKE_ELIMIT: "a configured limit is reached",
};

export class SpokeError extends Error {
    constructor(code, detail) {
        super(detail === undefined ? TEXTS[code] : `${TEXTS[code]}: ${detail}`);
        this.name = "SpokeError";
        this.code = code;
    }
}

/** "attached", "detached", "dialfailed" of a socket: which URL, and why (a code, or null). */
export class SpokeEvent extends Event {
    constructor(type, url, reason) {
        super(type);
        this.url = url;
        this.reason = reason;
    }
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** What a body says, as text; bytes that are no UTF-8 become U+FFFD. */
export const text = (body) => decoder.decode(body);

// A view of what the user gave; the caller copies it before it returns.
export function bytesOf(body) {
    if (typeof body === "string")
        return encoder.encode(body);
    if (ArrayBuffer.isView(body))
        return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
    if (body instanceof ArrayBuffer)
        return new Uint8Array(body);
    throw new SpokeError("SPOKE_EINVAL", "a body is a string, an ArrayBuffer or a view of one");
}

// A message of our own: header words, then a copy of the body.
export function compose(words, body) {
    const bytes = bytesOf(body);
    const message = new Uint8Array(words.length * WORD + bytes.length);
    const view = new DataView(message.buffer);

    words.forEach((word, i) => view.setUint32(i * WORD, word));
    message.set(bytes, words.length * WORD);
    return message;
}

export const wordAt = (message, offset) =>
    new DataView(message.buffer, message.byteOffset).getUint32(offset);

export function startsWith(body, topic) {
    return body.length >= topic.length && topic.every((byte, i) => body[i] === byte);
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export function checkNumber(name, value, most) {
    if (typeof value !== "number")
        throw new SpokeError("SPOKE_ETYPE", name);
    if (!(value >= 0 && value <= most))
        throw new SpokeError("SPOKE_ERANGE", name);
    return value;
}

// ---- waiting ----

// A promise that ends also when options.timeout ms have passed or options.signal aborts.
// forget(waiter) is called when it ends, however it does.  Throws what ends it before it begins.
export function startWait({ timeout, signal } = {}, forget) {
    const waiter = {};
    let timer;

    signal?.throwIfAborted();
    if (timeout !== undefined && checkNumber("timeout", timeout, TIME_MOST) === 0)
        throw new SpokeError("SPOKE_EAGAIN");
    const onAbort = () => waiter.reject(signal.reason);
    waiter.promise = new Promise((resolve, reject) => {
        const ending = (settle) => (value) => {
            clearTimeout(timer);
            signal?.removeEventListener("abort", onAbort);
            forget(waiter);
            settle(value);
        };
        waiter.resolve = ending(resolve);
        waiter.reject = ending(reject);
    });
    signal?.addEventListener("abort", onAbort);
    if (timeout !== undefined)
        timer = setTimeout(() => waiter.reject(new SpokeError("SPOKE_ETIMEDOUT")), timeout);
    return waiter;
}

// Those who wait for one thing, in order.
export class Waiters {
    #set = new Set();

    add(options) {
        if (this.#set.size >= WAITERS_MOST)
            throw new SpokeError("SPOKE_ELIMIT", `${WAITERS_MOST} wait already`);
        const waiter = startWait(options, (ended) => this.#set.delete(ended));
        this.#set.add(waiter);
        return waiter;
    }

    first() {
        return this.#set.values().next().value;
    }

    fail(error) {
        for (const waiter of [...this.#set])
            waiter.reject(error);
    }
}

// Items with their sizes, bounded in number and bytes; one always fits if there may be any.
export class Queue {
    #items = [];
    bytes = 0;

    constructor(most, mostBytes) {
        this.most = most;
        this.mostBytes = mostBytes;
    }

    get count() {
        return this.#items.length;
    }

    hasRoom(size) {
        return this.count < this.most && (this.count === 0 || this.bytes + size <= this.mostBytes);
    }

    push(item, size) {
        this.#items.push({ item, size });
        this.bytes += size;
    }

    shift() {
        const { item, size } = this.#items.shift();
        this.bytes -= size;
        return item;
    }

    keep(isWanted) {
        this.#items = this.#items.filter(({ item }) => isWanted(item));
        this.bytes = this.#items.reduce((sum, { size }) => sum + size, 0);
    }
}

// What has been received: items for readers who wait, else in a queue.
export class Inbox {
    readers = new Waiters();
    #end = null; // what a take gives once the queue is empty

    constructor(most, mostBytes) {
        this.queue = new Queue(Math.max(most, 1), mostBytes);
    }

    // False: there is no room.
    put(item, size) {
        const reader = this.readers.first();

        if (reader !== undefined)
            reader.resolve(item);
        else if (this.queue.hasRoom(size))
            this.queue.push(item, size);
        else
            return false;
        return true;
    }

    async take(options) {
        options?.signal?.throwIfAborted();
        if (this.queue.count > 0)
            return this.queue.shift();
        if (this.#end !== null)
            throw this.#end;
        return this.readers.add(options).promise;
    }

    // What is in the queue can be taken still, unless it is dropped.
    end(error, drop) {
        if (this.#end === null || drop)
            this.#end = error;
        if (drop)
            this.queue.keep(() => false);
        this.readers.fail(error);
    }
}

// ---- options ----

const OPTIONS = {
    WebSocket: [undefined],
    sendQueue: [128, 1e6],
    sendQueueBytes: [8 * 2 ** 20, 2 ** 31],
    recvQueue: [1024, 1e6],
    recvQueueBytes: [8 * 2 ** 20, 2 ** 31],
    maxRecvSize: [2 ** 20, 2 ** 31],
    reconnectTime: [100, TIME_MOST],
    reconnectTimeMax: [10_000, TIME_MOST],
    handshakeTime: [10_000, TIME_MOST],
    linger: [1000, TIME_MOST],
};
const LOSSES = ["newest", "oldest", "disconnect"];

// `more`: the options of one kind of socket, as above.
export function checkOptions(given, more) {
    const known = { ...OPTIONS, ...more };
    const options = {};

    for (const name of Object.keys(given))
        if (!Object.hasOwn(known, name))
            throw new SpokeError("SPOKE_EOPTION", name);
    for (const [name, [normal, most]] of Object.entries(known)) {
        options[name] = given[name] ?? normal;
        if (most !== undefined)
            checkNumber(name, options[name], most);
    }
    if (options.loss !== undefined && !LOSSES.includes(options.loss))
        throw new SpokeError("SPOKE_ERANGE", "loss");
    options.WebSocket ??= globalThis.WebSocket;
    if (options.WebSocket === undefined)
        throw new SpokeError("SPOKE_ENOTSUP");
    return options;
}

// What a WebSocket class takes; in a page also relative URLs, and those of http for those of ws.
export function checkUrl(given) {
    let url;

    try {
        url = new URL(given, globalThis.location?.href);
    } catch {
        throw new SpokeError("SPOKE_EURL", given);
    }
    url.protocol = url.protocol.replace(/^http/, "ws");
    url.hash = "";
    if (!/^wss?:$/.test(url.protocol))
        throw new SpokeError("SPOKE_ESCHEME", given);
    return url.href;
}
