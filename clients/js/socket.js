// SPDX-License-Identifier: MIT
// A socket's connections: dialers, each with at most one pipe at a time, and what all patterns share.
import {
    checkNumber, checkOptions, checkUrl, Queue, sleep, SpokeError, SpokeEvent, TIME_MOST,
    Waiters,
} from "./common.js";

const BUFFERED_MOST = 256 * 1024; // what a WebSocket may hold before messages wait in our queues
const POLL_MS = 5; // how often to look whether it holds less: there is no event for it
const CLOSE_MS = 1000; // how long a peer may take to answer a close

// ---- connections ----

// One connection that has been agreed on, from "attached" to "detached".
class Pipe {
    #poll = null;
    isOpen = true;

    constructor(dialer, ws) {
        const { sendQueue, sendQueueBytes } = dialer.socket._options;

        this.dialer = dialer;
        this.ws = ws;
        this.queue = new Queue(sendQueue, sendQueueBytes); // of those who send to each peer
    }

    get isWritable() {
        return this.isOpen && this.#poll === null && this.ws.readyState === 1;
    }

    send(message) {
        this.ws.send(message);
        if (this.ws.bufferedAmount >= BUFFERED_MOST)
            this.#poll = setInterval(() => this.#look(), POLL_MS);
    }

    #look() {
        if (this.ws.bufferedAmount >= BUFFERED_MOST)
            return;
        this.#endPoll();
        while (this.queue.count > 0 && this.isWritable)
            this.send(this.queue.shift());
        if (this.isWritable)
            this.dialer.socket._writable(this);
    }

    #endPoll() {
        clearInterval(this.#poll);
        this.#poll = null;
    }

    // Send to this peer, now or later.  False: there is no room for it.
    post(message) {
        if (this.queue.count === 0 && this.isWritable)
            this.send(message);
        else if (this.queue.hasRoom(message.length))
            this.queue.push(message, message.length);
        else
            return false;
        return true;
    }

    end() {
        this.isOpen = false;
        this.#endPoll();
    }
}

// One URL: connects, and does so again when the connection is gone.
class Dialer {
    #failures = 0;
    #timer = null;
    #ws = null; // of the attempt, or the pipe's
    #pipe = null;
    #begun = 0;
    #isStopped = false;
    #protocol;

    constructor(socket, url) {
        this.socket = socket;
        this.url = url;
        this.#protocol = `${socket._peer}.sp.nanomsg.org`;
    }

    dial() {
        const { WebSocket, handshakeTime, reconnectTime } = this.socket._options;
        let ws;

        if (this.#isStopped)
            return;
        if (this.socket._isCrowded()) {
            this.#timer = setTimeout(() => this.dial(), Math.max(reconnectTime, 1));
            return;
        }
        this.socket.stats.dials++;
        try {
            ws = new WebSocket(this.url, [this.#protocol]);
        } catch { // a page of https may not use ws, some ports are forbidden
            this.#attemptFailed("SPOKE_EACCES");
            return;
        }
        this.#ws = ws;
        ws.binaryType = "arraybuffer";
        ws.onopen = () => this.#opened(ws);
        ws.onmessage = ({ data }) => this.#received(data);
        ws.onerror = () => {}; // "close" follows; it says as little
        ws.onclose = ({ wasClean }) => this.#closed(ws, wasClean);
        this.#timer = setTimeout(() => this.drop("SPOKE_ETIMEDOUT"), handshakeTime);
    }

    #opened(ws) {
        clearTimeout(this.#timer);
        if (ws.protocol !== this.#protocol) {
            this.drop("SPOKE_EPEER");
        } else if (!this.socket._mayAttach()) {
            this.socket.stats.refused++;
            this.drop("SPOKE_EREFUSED");
        } else {
            this.#pipe = new Pipe(this, ws);
            this.#begun = Date.now();
            this.socket._attach(this.#pipe);
        }
    }

    #closed(ws, wasClean) {
        if (ws !== this.#ws)
            return; // we did it, and have said why
        if (this.#pipe === null)
            this.#ended("SPOKE_ECONNREFUSED");
        else
            this.#ended(wasClean ? "SPOKE_EOF" : "SPOKE_ECONNRESET");
    }

    #received(data) {
        const { maxRecvSize } = this.socket._options;

        if (typeof data === "string") {
            this.socket.stats.garbled++;
            this.drop("SPOKE_EPROTO");
        } else if (maxRecvSize > 0 && data.byteLength > maxRecvSize) {
            this.socket.stats.oversized++;
            this.drop("SPOKE_EMSGSIZE");
        } else {
            this.socket._received(this.#pipe, new Uint8Array(data));
        }
    }

    /** End the connection or the attempt, now, and say why; dial again later. */
    drop(reason) {
        const closed = closeWebSocket(this.#ws, reason);

        this.#ended(reason);
        return closed;
    }

    #ended(reason) {
        const pipe = this.#pipe;

        clearTimeout(this.#timer);
        this.#ws = this.#pipe = null;
        if (pipe === null) {
            this.#attemptFailed(reason);
            return;
        }
        if (Date.now() - this.#begun >= this.socket._options.reconnectTime)
            this.#failures = 0;
        pipe.end();
        this.#dialLater();
        this.socket._detach(pipe, reason);
    }

    #attemptFailed(reason) {
        this.#dialLater();
        this.socket._dialFailed(this.url, reason);
    }

    // Random between the first wait and a limit that doubles with each failure.
    #dialLater() {
        const { reconnectTime, reconnectTimeMax } = this.socket._options;
        const first = Math.max(reconnectTime, 1);

        if (this.#isStopped)
            return;
        this.#failures = Math.min(this.#failures + 1, 32);
        const limit = Math.max(first, Math.min(first * 2 ** this.#failures, reconnectTimeMax));
        this.#timer = setTimeout(() => this.dial(), first + Math.random() * (limit - first));
    }

    // Resolves when the connection is closed, too.
    async stop() {
        this.#isStopped = true;
        clearTimeout(this.#timer);
        if (this.#ws !== null)
            await this.drop("SPOKE_ECLOSED");
    }
}

// Resolves when the closing handshake is over, or has taken too long.
async function closeWebSocket(ws, reason) {
    ws.onopen = ws.onmessage = null;
    const closed = new Promise((resolve) => ws.addEventListener("close", resolve));
    if (ws.readyState === 0)
        ws.close(); // there is nobody to tell
    else
        ws.close(reason === "SPOKE_ECLOSED" ? 1000 : 4000, reason);
    let timer;
    await Promise.race([closed, new Promise((resolve) => { timer = setTimeout(resolve, CLOSE_MS); })]);
    clearTimeout(timer);
    ws.terminate?.(); // Node's ws would wait longer
}

// ---- sockets ----

class Counters {
    messagesSent = 0;
    bytesSent = 0;
    messagesReceived = 0;
    bytesReceived = 0;
    droppedNoPeer = 0;
    droppedPeerFull = 0;
    droppedRecvFull = 0;
    droppedUnwanted = 0;
    droppedStale = 0;
    droppedTtl = 0;
    droppedLost = 0; // messages that waited for a peer that is gone
    garbled = 0;
    oversized = 0;
    refused = 0;
    disconnectedFull = 0; // connections closed because our receive queue was full
    pipesAttached = 0;
    dials = 0;
    dialsFailed = 0;
    retries = 0;
}

// What all have in common; the patterns fill in what follows "for the patterns".
export class Socket extends EventTarget {
    #dialers;
    #pipes = [];
    #turn = 0;
    #connectors = new Waiters();
    #closing = null;
    stats = new Counters();

    constructor(peer, urls, options = {}, more = {}) {
        super();
        this._peer = peer;
        this._options = checkOptions(options, more);
        this.#dialers = [urls].flat().map((url) => new Dialer(this, checkUrl(url)));
        if (this.#dialers.length === 0)
            throw new SpokeError("SPOKE_EURL", "there is none");
        // When the constructors are done, and the user has had time to listen for events.
        queueMicrotask(() => this.#dialers.forEach((dialer) => dialer.dial()));
    }

    get peers() {
        return this.#pipes.length;
    }

    async connected(options) {
        this._checkOpen();
        options?.signal?.throwIfAborted();
        if (this.#pipes.length === 0)
            await this.#connectors.add(options).promise;
    }

    close({ linger = this._options.linger } = {}) {
        this.#closing ??= this.#close(checkNumber("linger", linger, TIME_MOST));
        return this.#closing;
    }

    async #close(linger) {
        const deadline = Date.now() + linger;
        const error = new SpokeError("SPOKE_ECLOSED");

        this.#connectors.fail(error);
        this._closed(error);
        while (this.#left().messages > 0 && Date.now() < deadline)
            await sleep(POLL_MS);
        const report = this.#left();
        await Promise.all(this.#dialers.map((dialer) => dialer.stop()));
        return report;
    }

    // What sends took and no WebSocket has.
    #left() {
        const queues = [...this._queues(), ...this.#pipes.map((pipe) => pipe.queue)];

        return {
            messages: queues.reduce((sum, queue) => sum + queue.count, 0),
            bytes: queues.reduce((sum, queue) => sum + queue.bytes, 0),
        };
    }

    // ---- for dialers ----

    _attach(pipe) {
        this.#pipes.push(pipe);
        this.stats.pipesAttached++;
        for (let waiter; (waiter = this.#connectors.first()) !== undefined;)
            waiter.resolve();
        this._writable(pipe);
        this.dispatchEvent(new SpokeEvent("attached", pipe.dialer.url, null));
    }

    _detach(pipe, reason) {
        this.#pipes = this.#pipes.filter((other) => other !== pipe);
        this.stats.droppedLost += pipe.queue.count;
        this._lost(pipe);
        this.dispatchEvent(new SpokeEvent("detached", pipe.dialer.url, reason));
    }

    _dialFailed(url, reason) {
        this.stats.dialsFailed++;
        if (this.#closing === null)
            this.dispatchEvent(new SpokeEvent("dialfailed", url, reason));
    }

    // ---- for the patterns ----

    _checkOpen() {
        if (this.#closing !== null)
            throw new SpokeError("SPOKE_ECLOSED");
    }

    // One of those who can take a message, by turns.
    _nextWritable() {
        const count = this.#pipes.length;

        for (let i = 0; i < count; i++) {
            const at = (this.#turn + i) % count;
            if (this.#pipes[at].isWritable) {
                this.#turn = at + 1;
                return this.#pipes[at];
            }
        }
        return null;
    }

    // A copy for each peer that has room for it.
    _sendToAll(message) {
        for (const pipe of this.#pipes)
            if (!pipe.post(message))
                this.stats.droppedPeerFull++;
    }

    _countSent(size) {
        this.stats.messagesSent++;
        this.stats.bytesSent += size;
    }

    _countReceived(size) {
        this.stats.messagesReceived++;
        this.stats.bytesReceived += size;
    }

    _reject(pipe) {
        this.stats.garbled++;
        pipe.dialer.drop("SPOKE_EPROTO");
    }

    _mayAttach() { return true; }
    _isCrowded() { return false; } // do not dial now
    _writable() {} // this pipe can take a message
    _lost() {} // this pipe is gone
    _received() { this.stats.droppedUnwanted++; }
    _closed() {} // tell all who wait
    _queues() { return []; } // of what has been sent, but the pipes'
}
