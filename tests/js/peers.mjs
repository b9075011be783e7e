// SPDX-License-Identifier: MIT
// Programs for tests: js-peer of this build (in the environment as JS_PEER), in as many copies as a test wants.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const all = new Map();

export class Program {
    lines = [];
    #grown = null;

    constructor(command, args) {
        this.child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
        this.child.stdin.on("error", () => {}); // it may be killed meanwhile
        this.ended = once(this.child, "exit");
        this.ended.then(() => this.#grown?.());
        createInterface({ input: this.child.stdout }).on("line", (line) => {
            this.lines.push(line);
            this.#grown?.();
        });
    }

    // The first `count` lines of its output, once they are there.
    async first(count) {
        while (this.lines.length < count) {
            if (this.child.exitCode !== null || this.child.signalCode !== null)
                throw new Error(`it has ended after ${this.lines.length} lines of ${count}`);
            await new Promise((resolve) => { this.#grown = resolve; });
        }
        return this.lines.slice(0, count);
    }

    async kill() {
        if (this.child.exitCode === null && this.child.signalCode === null)
            this.child.kill("SIGKILL");
        await this.ended;
    }
}

export async function startDemo() {
    const program = new Program(process.env.SPOKE, ["demo", "--web"]);
    const [line] = await program.first(1);

    return { program, url: line.match(/^http:\S+\/demo\//)[0] };
}

// A host and a port that nobody takes before the test does: all of 127.0.0.0/8 is this machine, so each process has a
// host for itself.
let lastPort = 20000;
export function freeAddress() {
    return `127.${1 + (process.pid >> 8) % 254}.${process.pid & 255}.1:${++lastPort}`;
}

async function launch(id, pattern, url) {
    const program = new Program(process.env.JS_PEER, [pattern, url]);

    all.set(id, { program, pattern });
    [all.get(id).url] = await program.first(1);
    return all.get(id).url;
}

export const peers = {
    async start(pattern) {
        const id = String(all.size);
        all.set(id, null);
        return { id, url: await launch(id, pattern, "ws://127.0.0.1:0/test") };
    },
    async write(id, line) {
        all.get(id).program.child.stdin.write(`${line}\n`);
    },
    // Without the address, which is its first.
    async lines(id, count) {
        return (await all.get(id).program.first(count + 1)).slice(1);
    },
    async kill(id) {
        await all.get(id).program.kill();
    },
    async restart(id) {
        const { pattern, url } = all.get(id);
        await this.kill(id);
        await launch(id, pattern, url);
    },
    async killAll() {
        for (const entry of all.values())
            await entry?.program.kill();
    },
};
