// SPDX-License-Identifier: MIT
// A headless Chromium with one page, driven through its remote debugging protocol.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { ClientOfNodeWs } from "./websocket.mjs";

const FLAGS = [
    "--headless", "--disable-gpu", "--no-first-run", "--disable-extensions", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-proxy-server", "--remote-debugging-port=0",
    "--window-size=1000,800", "about:blank",
];

async function devtoolsUrl(child) {
    const said = [];

    for await (const line of createInterface({ input: child.stderr })) {
        const found = line.match(/^DevTools listening on (ws:.*)$/);
        if (found !== null)
            return found[1];
        said.push(line);
    }
    throw new Error(`chromium ended: ${said.join("\n")}`);
}

export class Browser {
    #calls = new Map();
    #session = undefined;

    // Its files are in a directory of its own, which close() removes with it.
    static async launch() {
        const browser = new Browser();

        browser.home = await mkdtemp(join(tmpdir(), "spoke-chromium-"));
        // Its sandbox does not work as root; it sees nothing but pages of ours.
        browser.child = spawn("chromium", ["--no-sandbox", `--user-data-dir=${browser.home}`, ...FLAGS],
            { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, HOME: browser.home } });
        browser.ended = once(browser.child, "exit");
        try {
            await browser.#connect(await devtoolsUrl(browser.child));
        } catch (error) {
            await browser.close();
            throw error;
        }
        browser.child.stderr.resume();
        return browser;
    }

    async #connect(url) {
        this.ws = new ClientOfNodeWs(url, { perMessageDeflate: false });
        this.ws.on("message", (data) => this.#answered(JSON.parse(data)));
        await once(this.ws, "open");
        const { targetInfos } = await this.call("Target.getTargets");
        const { targetId } = targetInfos.find(({ type }) => type === "page");
        const { sessionId } = await this.call("Target.attachToTarget", { targetId, flatten: true });
        this.#session = sessionId;
        await this.call("Page.enable");
    }

    #answered({ id, result, error, method }) {
        const call = this.#calls.get(id ?? method);

        this.#calls.delete(id ?? method);
        if (error !== undefined)
            call?.reject(new Error(error.message));
        else
            call?.resolve(result);
    }

    call(method, params = {}) {
        const id = (this.last = (this.last ?? 0) + 1);

        this.ws.send(JSON.stringify({ id, method, params, sessionId: this.#session }));
        return new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
    }

    async open(url) {
        const loaded = new Promise((resolve) =>
            this.#calls.set("Page.loadEventFired", { resolve }));
        const { errorText } = await this.call("Page.navigate", { url });
        if (errorText !== undefined)
            throw new Error(`${url}: ${errorText}`);
        await loaded;
    }

    // The value of an expression in the page, also that of a promise.
    async evaluate(expression) {
        const { result, exceptionDetails } = await this.call("Runtime.evaluate",
            { expression, awaitPromise: true, returnByValue: true });
        if (exceptionDetails !== undefined)
            throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
        return result.value;
    }

    // A PNG.
    async screenshot() {
        const { data } = await this.call("Page.captureScreenshot", { format: "png" });
        return Buffer.from(data, "base64");
    }

    async close() {
        try {
            await Promise.race([this.call("Browser.close"), this.ended]);
        } catch {
            this.child.kill("SIGKILL");
        }
        const late = setTimeout(() => this.child.kill("SIGKILL"), 5000);
        await this.ended;
        clearTimeout(late);
        this.ws?.terminate();
        await rm(this.home, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    }
}
