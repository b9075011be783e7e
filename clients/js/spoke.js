// SPDX-License-Identifier: MIT
// spoke's client for browsers and Node: the Scalability Protocols over WebSocket, dialing only.
//
//   new Req(url).request(body)          one promise for one reply, as many at once as you like
//   new Sub(url), Pull, Pair, Bus …     for await (const bytes of socket), socket.receive()
//   new Pub(url), Push, Pair, Bus …     socket.send(body)
//   new Surveyor(url).survey(body)      for await (const answer of survey)
//   new Rep(url), Respondent            for await (const question of socket) question.reply(body)
//
// A socket dials each of its URLs, again and again whenever the connection is lost, until close().
// The rules are those of the C library's sockets (docs/wire.md); README.md says what differs here.

import {
    bytesOf, checkNumber, compose, Inbox, Queue, SpokeError, startsWith, startWait, TIME_MOST,
    TOP_BIT, Waiters, WAITERS_MOST, WORD, wordAt,
} from "./common.js";
import { Socket } from "./socket.js";

export { SpokeError, SpokeEvent, text } from "./common.js";

// ---- receiving, sending ----

// Adds receive() and iteration.  A pattern calls _deliver().
const Receiving = (Base, normalLoss) => class extends Base {
    #inbox;

    constructor(peer, urls, options, more) {
        super(peer, urls, options, { ...more, loss: [normalLoss] });
        this.#inbox = new Inbox(this._options.recvQueue, this._options.recvQueueBytes);
    }

    async receive(options) {
        const item = await this.#inbox.take(options);
        this._countReceived((item.body ?? item).length);
        return item;
    }

    /** Iterates over what is received, until the socket is closed. */
    async *messages(options) {
        try {
            for (;;)
                yield await this.receive(options);
        } catch (error) {
            if (error.code !== "SPOKE_ECLOSED")
                throw error;
        }
    }

    [Symbol.asyncIterator]() {
        return this.messages();
    }

    _deliver(pipe, item, size) {
        const { loss } = this._options;

        while (!this.#inbox.put(item, size)) {
            this.stats.droppedRecvFull++;
            if (loss === "disconnect") {
                this.stats.disconnectedFull++;
                pipe.dialer.drop("SPOKE_ELIMIT");
            }
            if (loss !== "oldest")
                return;
            this.#inbox.queue.shift();
        }
    }

    _keep(isWanted) {
        this.#inbox.queue.keep(isWanted);
    }

    // It was too much before: there is no other way to hold a peer back.
    _isCrowded() {
        const { queue } = this.#inbox;

        return this._options.loss === "disconnect" &&
            (queue.count > queue.most / 2 || queue.bytes > queue.mostBytes / 2);
    }

    _closed(error) {
        super._closed(error);
        this.#inbox.end(error, true);
    }
};

// Adds send() to one peer of many, through a queue.  A pattern may give messages header words.
const Sending = (Base) => class extends Base {
    #queue;
    #senders = new Waiters();

    constructor(peer, urls, options, more) {
        super(peer, urls, options, more);
        this.#queue = new Queue(this._options.sendQueue, this._options.sendQueueBytes);
    }

    async send(body, options) {
        this._checkOpen();
        options?.signal?.throwIfAborted();
        const message = compose(this._words(), body);
        if (this.#senders.first() === undefined && this.#take(message))
            return;
        const sender = this.#senders.add(options);
        sender.message = message;
        await sender.promise;
    }

    // False: there is no room.
    #take(message) {
        const pipe = this.#queue.count === 0 ? this._nextWritable() : null;

        if (pipe !== null)
            pipe.send(message);
        else if (this.#queue.hasRoom(message.length))
            this.#queue.push(message, message.length);
        else
            return false;
        this._countSent(message.length - this._words().length * WORD);
        return true;
    }

    _writable() {
        for (let pipe; this.#queue.count > 0 && (pipe = this._nextWritable()) !== null;)
            pipe.send(this.#queue.shift());
        for (let sender; (sender = this.#senders.first()) !== undefined;) {
            if (!this.#take(sender.message))
                return;
            sender.resolve();
        }
    }

    _words() {
        return [];
    }

    _closed(error) {
        super._closed(error);
        this.#senders.fail(error);
    }

    _queues() {
        return [this.#queue];
    }
};

// ---- pipelines, pairs ----

export class Push extends Sending(Socket) {
    constructor(urls, options) {
        super("pull", urls, options);
    }
}

export class Pull extends Receiving(Socket, "disconnect") {
    constructor(urls, options) {
        super("push", urls, options);
    }

    _received(pipe, message) {
        this._deliver(pipe, message, message.length);
    }
}

class OnePeer extends Sending(Receiving(Socket, "disconnect")) {
    _mayAttach() {
        return this.peers === 0;
    }
}

export class Pair extends OnePeer {
    constructor(urls, options) {
        super("pair", urls, options);
    }

    _received(pipe, message) {
        this._deliver(pipe, message, message.length);
    }
}

/** Version 1, what NNG calls a pair: a word that counts hops is in front of each message. */
export class Pair1 extends OnePeer {
    constructor(urls, options) {
        super("pair1", urls, options, { ttl: [8, 255] });
    }

    _words() {
        return [1];
    }

    _received(pipe, message) {
        const hops = message.length < WORD ? 256 : wordAt(message, 0);

        if (hops > 255)
            this._reject(pipe);
        else if (hops > this._options.ttl)
            this.stats.droppedTtl++;
        else
            this._deliver(pipe, message.subarray(WORD), message.length - WORD);
    }
}

// ---- to everybody ----

const Publishing = (Base) => class extends Base {
    async send(body) {
        this._checkOpen();
        const message = compose([], body);
        this._sendToAll(message);
        this._countSent(message.length);
    }
};

export class Pub extends Publishing(Socket) {
    constructor(urls, options) {
        super("sub", urls, options);
    }
}

export class Bus extends Publishing(Receiving(Socket, "newest")) {
    constructor(urls, options) {
        super("bus", urls, options);
    }

    _received(pipe, message) {
        this._deliver(pipe, message, message.length);
    }
}

export class Sub extends Receiving(Socket, "newest") {
    #topics = [];

    constructor(urls, { topics = [], ...options } = {}) {
        [topics].flat().forEach(bytesOf); // throws before anything has begun
        super("pub", urls, options);
        for (const topic of [topics].flat())
            this.subscribe(topic);
    }

    subscribe(topic) {
        const bytes = bytesOf(topic).slice();

        this._checkOpen();
        if (this.#indexOf(bytes) < 0)
            this.#topics.push(bytes);
    }

    unsubscribe(topic) {
        const index = this.#indexOf(bytesOf(topic));

        this._checkOpen();
        if (index < 0)
            throw new SpokeError("SPOKE_ENOENT");
        this.#topics.splice(index, 1);
        this._keep((message) => this.#isWanted(message)); // what has arrived already, too
    }

    #indexOf(bytes) {
        return this.#topics.findIndex(
            (topic) => topic.length === bytes.length && startsWith(topic, bytes));
    }

    #isWanted(message) {
        const wanted = this.#topics.some((topic) => startsWith(message, topic));

        if (!wanted)
            this.stats.droppedUnwanted++;
        return wanted;
    }

    _received(pipe, message) {
        if (this.#isWanted(message))
            this._deliver(pipe, message, message.length);
    }
}

// ---- asking ----

// Numbers for requests and surveys, each once while it is in use, and what each stands for.
class Ids {
    #next = Math.floor(Math.random() * TOP_BIT);
    map = new Map();

    take(owner) {
        let id;

        if (this.map.size >= WAITERS_MOST)
            throw new SpokeError("SPOKE_ELIMIT", `${WAITERS_MOST} are not done yet`);
        do {
            id = (TOP_BIT | this.#next++) >>> 0;
        } while (this.map.has(id));
        this.map.set(id, owner);
        return id;
    }
}

// Common to Req and Surveyor: who is meant by a message.
class Asking extends Socket {
    _ids = new Ids();

    _received(pipe, message) {
        const owner = message.length >= WORD ? this._ids.map.get(wordAt(message, 0)) : undefined;

        if (message.length < WORD)
            this._reject(pipe);
        else if (owner === undefined)
            this.stats.droppedStale++;
        else
            this._answered(owner, message.subarray(WORD));
    }
}

export class Req extends Asking {
    #unsent = new Set();

    constructor(urls, options) {
        super("rep", urls, options, { retryTime: [60_000, TIME_MOST] });
    }

    /** Give the reply to `body`.  It is sent again when its peer is gone, or silent for too long. */
    async request(body, { retryTime = this._options.retryTime, ...options } = {}) {
        this._checkOpen();
        checkNumber("retryTime", retryTime, TIME_MOST);
        const bytes = bytesOf(body);
        const request = startWait(options, (ended) => this.#forget(ended));
        request.retryTime = retryTime;
        request.pipe = null;
        request.wasSent = false;
        try {
            request.id = this._ids.take(request);
        } catch (error) {
            request.reject(error);
            return request.promise;
        }
        request.message = compose([request.id], bytes);
        this._countSent(bytes.length);
        this.#unsent.add(request);
        this._writable();
        return request.promise;
    }

    #forget(request) {
        clearTimeout(request.timer);
        this.#unsent.delete(request);
        this._ids.map.delete(request.id);
    }

    _writable() {
        for (const request of this.#unsent) {
            const pipe = this._nextWritable();
            if (pipe === null)
                return;
            this.#send(request, pipe);
        }
    }

    #send(request, pipe) {
        this.#unsent.delete(request);
        this.stats.retries += request.wasSent;
        request.wasSent = true;
        request.pipe = pipe;
        if (request.retryTime > 0)
            request.timer = setTimeout(() => this.#sendAgain(request), request.retryTime);
        pipe.send(request.message);
    }

    #sendAgain(request) {
        clearTimeout(request.timer);
        request.pipe = null;
        this.#unsent.add(request);
        this._writable();
    }

    _lost(pipe) {
        for (const request of [...this._ids.map.values()]) {
            if (request.pipe !== pipe)
                continue;
            if (request.retryTime > 0)
                this.#sendAgain(request);
            else
                request.reject(new SpokeError("SPOKE_ECONNRESET"));
        }
    }

    _answered(request, body) {
        if (!request.wasSent) { // nobody can know this number but by guessing
            this.stats.droppedStale++;
            return;
        }
        this._countReceived(body.length);
        request.resolve(body);
    }

    _closed(error) {
        for (const request of [...this._ids.map.values()])
            request.reject(error);
    }
}

/** The answers to one survey, until its time is up: iterate over it once. */
class Survey {
    #inbox;
    #forget;
    #timer;
    #signal;
    #onAbort = () => this._end(this.#signal.reason, true);

    constructor({ recvQueue, recvQueueBytes }, time, signal, forget) {
        this.#inbox = new Inbox(recvQueue, recvQueueBytes);
        this.#forget = forget;
        this.#signal = signal;
        signal?.addEventListener("abort", this.#onAbort);
        if (time > 0)
            this.#timer = setTimeout(() => this._end(new SpokeError("SPOKE_ETIMEDOUT"), false), time);
    }

    async next() {
        try {
            return { value: await this.#inbox.take(), done: false };
        } catch (error) {
            if (error?.code !== "SPOKE_ETIMEDOUT")
                throw error;
            return { value: undefined, done: true };
        }
    }

    async return() {
        this._end(new SpokeError("SPOKE_ETIMEDOUT"), true);
        return { value: undefined, done: true };
    }

    [Symbol.asyncIterator]() {
        return this;
    }

    _put(body) {
        return this.#inbox.put(body, body.length);
    }

    _end(error, drop) {
        clearTimeout(this.#timer);
        this.#signal?.removeEventListener("abort", this.#onAbort);
        this.#forget();
        this.#inbox.end(error, drop);
    }
}

export class Surveyor extends Asking {
    constructor(urls, options) {
        super("respondent", urls, options, { surveyTime: [1000, TIME_MOST] });
    }

    /** Ask all who are connected now; answers count for `time` ms, 0: until you stop iterating. */
    survey(body, { time = this._options.surveyTime, signal } = {}) {
        let id;

        this._checkOpen();
        signal?.throwIfAborted();
        checkNumber("time", time, TIME_MOST);
        const bytes = bytesOf(body);
        const survey = new Survey(this._options, time, signal, () => this._ids.map.delete(id));
        try {
            id = this._ids.take(survey);
        } catch (error) {
            survey._end(error, true);
            throw error;
        }
        this._sendToAll(compose([id], bytes));
        this._countSent(bytes.length);
        return survey;
    }

    _answered(survey, body) {
        if (survey._put(body))
            this._countReceived(body.length);
        else
            this.stats.droppedRecvFull++;
    }

    _closed(error) {
        for (const survey of [...this._ids.map.values()])
            survey._end(error, true);
    }
}

// ---- answering ----

/** What was asked, and the way back to who asked. */
class Question {
    #reply;

    constructor(body, reply) {
        this.body = body;
        this.#reply = reply;
    }

    /** Answer, once.  If who asked is gone, so is the answer, without an error. */
    async reply(body) {
        const reply = this.#reply;

        if (reply === null)
            throw new SpokeError("SPOKE_ESTATE", "there is an answer already");
        reply(body);
        this.#reply = null;
    }
}

class Answering extends Receiving(Socket, "disconnect") {
    constructor(peer, urls, options) {
        super(peer, urls, options, { ttl: [8, 255] });
    }

    // The words up to the one with the top bit are the way back.
    _received(pipe, message) {
        const words = [];

        do {
            if (words.length === this._options.ttl) {
                this.stats.droppedTtl++;
                return;
            }
            if (message.length < (words.length + 1) * WORD) {
                this._reject(pipe);
                return;
            }
            words.push(wordAt(message, words.length * WORD));
        } while (words.at(-1) < TOP_BIT);
        const body = message.subarray(words.length * WORD);
        this._deliver(pipe, new Question(body, (answer) => this.#reply(pipe, words, answer)),
            message.length);
    }

    #reply(pipe, words, body) {
        this._checkOpen();
        const message = compose(words, body);
        if (!pipe.isOpen)
            this.stats.droppedNoPeer++;
        else if (!pipe.post(message))
            this.stats.droppedPeerFull++;
        this._countSent(message.length - words.length * WORD);
    }
}

export class Rep extends Answering {
    constructor(urls, options) {
        super("req", urls, options);
    }
}

export class Respondent extends Answering {
    constructor(urls, options) {
        super("surveyor", urls, options);
    }
}
