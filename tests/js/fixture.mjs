// SPDX-License-Identifier: MIT
// What the tests with a server of their own have in common.
import { once } from "node:events";
import { test as nodeTest } from "node:test";
import { SpokeError } from "../../clients/js/spoke.js";
import { Server } from "./server.mjs";
import { WebSocket } from "./websocket.mjs";

export const wait = { timeout: 30_000 };
export const isCode = (code) => (error) => error instanceof SpokeError && error.code === code;
export const eventOf = async (socket, type) => (await once(socket, type))[0];

// test(name, async ({ server, open }) => …): open() makes sockets; all is closed at the end.
export function test(name, run) {
    nodeTest(name, { timeout: 60_000 }, async () => {
        const server = await Server.listen();
        const sockets = [];
        const open = (Class, options = {}, urls = server.url) => {
            sockets.push(new Class(urls, { WebSocket, reconnectTime: 5, linger: 0, ...options }));
            return sockets.at(-1);
        };
        try {
            await run({ server, open });
        } finally {
            await Promise.all(sockets.map((socket) => socket.close()));
            await server.close();
        }
    });
}

// Timers that are set for exactly `ms` from now on run when fire() is called, and not before.
export function holdTimer(ms) {
    const real = globalThis.setTimeout;
    const held = [];

    globalThis.setTimeout = (run, time, ...rest) => {
        if (time !== ms)
            return real(run, time, ...rest);
        held.push(run);
        return undefined;
    };
    return {
        fire() {
            globalThis.setTimeout = real;
            held.forEach((run) => run());
        },
    };
}
