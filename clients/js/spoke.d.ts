// SPDX-License-Identifier: MIT
// Types of spoke.js.  Times are milliseconds, sizes bytes; README.md says the rest.

/** Text is sent as UTF-8; bytes are copied before the call returns. */
export type Body = string | ArrayBuffer | ArrayBufferView;

export type ErrorCode =
    | "SPOKE_EOF" | "SPOKE_EINVAL" | "SPOKE_EAGAIN" | "SPOKE_ETIMEDOUT" | "SPOKE_ECLOSED"
    | "SPOKE_ESTATE" | "SPOKE_ENOTSUP" | "SPOKE_EOPTION" | "SPOKE_ETYPE" | "SPOKE_ERANGE"
    | "SPOKE_EURL" | "SPOKE_ESCHEME" | "SPOKE_ENOENT" | "SPOKE_EACCES" | "SPOKE_ECONNREFUSED"
    | "SPOKE_ECONNRESET" | "SPOKE_EPEER" | "SPOKE_EPROTO" | "SPOKE_EMSGSIZE" | "SPOKE_EREFUSED"
    | "SPOKE_ELIMIT";

export class SpokeError extends Error {
    constructor(code: ErrorCode, detail?: string);
    readonly code: ErrorCode;
}

/** What a body says, as text; bytes that are no UTF-8 become U+FFFD. */
export function text(body: Uint8Array): string;

/** How long a call may wait. */
export interface WaitOptions {
    /** At most so long, else SPOKE_ETIMEDOUT; 0: not at all, else SPOKE_EAGAIN.  Default: for ever. */
    timeout?: number;
    /** When it aborts the call fails with its reason. */
    signal?: AbortSignal;
}

/** Where to connect: ws or wss (http and https stand for them), in a page also relative to it. */
export type Urls = string | URL | ReadonlyArray<string | URL>;

export interface SocketOptions {
    /** The class that connects; default: the global one, which Node has from version 22 on. */
    WebSocket?: unknown;
    /** Messages that wait to be sent; 128.  0: only what a peer takes at once. */
    sendQueue?: number;
    /** The same bound in bytes; 8 MiB; one message always fits. */
    sendQueueBytes?: number;
    /** Messages that wait to be received; 1024. */
    recvQueue?: number;
    recvQueueBytes?: number;
    /** A larger message ends its connection; 1 MiB, header words included; 0: no limit. */
    maxRecvSize?: number;
    /** Least wait before connecting again; 100. */
    reconnectTime?: number;
    /** Most of it: the limit doubles with each failure, the wait is random below it; 10 000. */
    reconnectTimeMax?: number;
    /** How long an attempt to connect may take; 10 000. */
    handshakeTime?: number;
    /** How long close() waits for what is unsent; 1000. */
    linger?: number;
}

export interface ReceivingOptions extends SocketOptions {
    /** What becomes of a message that finds the receive queue full: "newest": it is dropped (the
     *  default of Sub and Bus); "oldest": another is; "disconnect": the connection ends, and is
     *  made again when half of the queue is free (the default of the others). */
    loss?: "newest" | "oldest" | "disconnect";
}

/** "attached": messages flow.  "detached": the connection is gone.  "dialfailed": an attempt is. */
export class SpokeEvent extends Event {
    constructor(type: string, url: string, reason: ErrorCode | null);
    readonly url: string;
    readonly reason: ErrorCode | null;
}

/** Numbers that only grow. */
export interface Stats {
    readonly messagesSent: number;
    readonly bytesSent: number;
    readonly messagesReceived: number;
    readonly bytesReceived: number;
    readonly droppedNoPeer: number;
    readonly droppedPeerFull: number;
    readonly droppedRecvFull: number;
    readonly droppedUnwanted: number;
    readonly droppedStale: number;
    readonly droppedTtl: number;
    readonly droppedLost: number;
    readonly garbled: number;
    readonly oversized: number;
    readonly refused: number;
    readonly disconnectedFull: number;
    readonly pipesAttached: number;
    readonly dials: number;
    readonly dialsFailed: number;
    readonly retries: number;
}

interface Socket extends EventTarget {
    addEventListener(type: "attached" | "detached" | "dialfailed",
        listener: (event: SpokeEvent) => void, options?: boolean | AddEventListenerOptions): void;
    addEventListener(type: string, listener: EventListenerOrEventListenerObject | null,
        options?: boolean | AddEventListenerOptions): void;
    /** Peers that are connected now. */
    readonly peers: number;
    readonly stats: Stats;
    /** Waits until there is a peer. */
    connected(options?: WaitOptions): Promise<void>;
    /** Ends everything; gives what was sent and is left.  Again: the same promise. */
    close(options?: { linger?: number }): Promise<{ messages: number; bytes: number }>;
}

interface Sending {
    /** Takes the body; waits while the send queue is full. */
    send(body: Body, options?: WaitOptions): Promise<void>;
}

interface Publishing {
    /** A copy for each peer that has room for it; never waits. */
    send(body: Body): Promise<void>;
}

interface Receiving<Item> extends AsyncIterable<Item> {
    receive(options?: WaitOptions): Promise<Item>;
    /** What is received, until the socket is closed. */
    messages(options?: WaitOptions): AsyncGenerator<Item, void, undefined>;
    [Symbol.asyncIterator](): AsyncGenerator<Item, void, undefined>;
}

export interface Push extends Socket, Sending {}
export class Push {
    constructor(urls: Urls, options?: SocketOptions);
}

export interface Pull extends Socket, Receiving<Uint8Array> {}
export class Pull {
    constructor(urls: Urls, options?: ReceivingOptions);
}

export interface Pair extends Socket, Sending, Receiving<Uint8Array> {}
export class Pair {
    constructor(urls: Urls, options?: ReceivingOptions);
}

/** Version 1, what NNG calls a pair. */
export interface Pair1 extends Socket, Sending, Receiving<Uint8Array> {}
export class Pair1 {
    constructor(urls: Urls, options?: ReceivingOptions & { ttl?: number });
}

export interface Pub extends Socket, Publishing {}
export class Pub {
    constructor(urls: Urls, options?: SocketOptions);
}

export interface Bus extends Socket, Publishing, Receiving<Uint8Array> {}
export class Bus {
    constructor(urls: Urls, options?: ReceivingOptions);
}

export interface Sub extends Socket, Receiving<Uint8Array> {}
export class Sub {
    constructor(urls: Urls, options?: ReceivingOptions & { topics?: Body | ReadonlyArray<Body> });
    /** Receive messages that begin so; "" all of them.  Again: no effect. */
    subscribe(topic: Body): void;
    /** No longer, also what has arrived.  SPOKE_ENOENT: not subscribed. */
    unsubscribe(topic: Body): void;
}

export interface Req extends Socket {}
export class Req {
    constructor(urls: Urls, options?: SocketOptions & { retryTime?: number });
    /** The reply to `body`; any number at once.  The request is sent again when its connection is
     *  lost, and after retryTime (60 000; 0: never, and a lost connection is SPOKE_ECONNRESET). */
    request(body: Body, options?: WaitOptions & { retryTime?: number }): Promise<Uint8Array>;
}

export interface Surveyor extends Socket {}
export class Surveyor {
    constructor(urls: Urls, options?: SocketOptions & { surveyTime?: number });
    /** Asks all who are connected now.  Iterate once over the answers that come within `time`
     *  (surveyTime, 1000; 0: no end); leaving the loop ends the survey. */
    survey(body: Body, options?: { time?: number; signal?: AbortSignal }):
        AsyncIterableIterator<Uint8Array>;
}

/** What was asked, and the way back to who asked. */
export interface Question {
    readonly body: Uint8Array;
    /** Answer, once (SPOKE_ESTATE).  If who asked is gone, so is the answer, without an error. */
    reply(body: Body): Promise<void>;
}

export interface Rep extends Socket, Receiving<Question> {}
export class Rep {
    constructor(urls: Urls, options?: ReceivingOptions & { ttl?: number });
}

export interface Respondent extends Socket, Receiving<Question> {}
export class Respondent {
    constructor(urls: Urls, options?: ReceivingOptions & { ttl?: number });
}
