// SPDX-License-Identifier: MIT
// What spoke.d.ts and package.json say is what there is, and codes are those of the C library.
import assert from "node:assert/strict";
import { access, readFile } from "node:fs/promises";
import { test } from "node:test";
import * as spoke from "../../clients/js/spoke.js";
import { WebSocket } from "./websocket.mjs";

const read = (path) => readFile(new URL(`../../${path}`, import.meta.url), "utf8");
const types = await read("clients/js/spoke.d.ts");
const matches = (text, pattern) => [...text.matchAll(pattern)].map((match) => match[1]);
const sorted = (things) => [...new Set(things)].sort();
const sockets = Object.keys(spoke).filter((name) => /^[A-Z]/.test(name) && !name.startsWith("Spoke"));

// The names in `interface NAME … {…}` and `class NAME {…}`, with those that they extend.
function membersOf(name) {
    const members = [];
    for (const [, heritage = "", body] of
        types.matchAll(new RegExp(`(?:interface|class) ${name}(?:<\\w+>)?(?: extends ([^{]*))? \\{([^]*?)\\n?\\}\\n`, "g"))) {
        members.push(...matches(body, /^ {4}(?:readonly )?(\w+)[?]?[(:]/gm));
        for (const base of matches(heritage, /(\w+)(?:<\w+>)?/g))
            members.push(...membersOf(base));
    }
    return members;
}

function methodsOf(prototype) {
    return prototype === EventTarget.prototype ? []
        : [...Object.getOwnPropertyNames(prototype), ...methodsOf(Object.getPrototypeOf(prototype))]
            .filter((name) => name !== "constructor" && !name.startsWith("_"));
}

test("exports", () => {
    assert.deepEqual(sorted(matches(types, /^export (?:class|function) (\w+)/gm)), sorted(Object.keys(spoke)));
    assert.equal(sockets.length, 11);
});

for (const name of sockets) {
    test(`${name}: its methods`, () => {
        const typed = membersOf(name).filter((member) =>
            !["constructor", "stats", "addEventListener", "Uint8Array", "Question"].includes(member));
        assert.ok(typed.length >= 4);
        assert.deepEqual(sorted(typed), sorted(methodsOf(spoke[name].prototype)));
    });
}

test("the counters, the options", async () => {
    const sub = new spoke.Sub("ws://127.0.0.1:1/", { WebSocket });
    assert.deepEqual(sorted(membersOf("Stats")), sorted(Object.keys(sub.stats)));
    const names = membersOf("SocketOptions");
    assert.deepEqual(sorted([...names, "loss"]), sorted(Object.keys(sub._options)));
    await sub.close();
});

test("error codes are those of errors.def, each with a text", async () => {
    const ours = matches(await read("include/spoke/errors.def"), /^ERROR\((\w+),/gm).map((name) => `SPOKE_${name}`);
    const typed = matches(types.slice(0, types.indexOf("class SpokeError")), /"(SPOKE_\w+)"/g);
    const used = matches(await read("clients/js/common.js") + await read("clients/js/socket.js") +
        await read("clients/js/spoke.js"), /"(SPOKE_\w+)"/g);
    assert.ok(typed.length > 15);
    assert.deepEqual(typed.filter((code) => !ours.includes(code)), []);
    assert.deepEqual(sorted(used), sorted(typed));
    for (const code of typed)
        assert.match(new spoke.SpokeError(code).message, /^[a-z]/, code);
});

test("the package has all of its files, needs no other, and says which version it is", async () => {
    const { files, exports, dependencies, version } = JSON.parse(await read("clients/js/package.json"));
    for (const file of files)
        await access(new URL(`../../clients/js/${file}`, import.meta.url));
    for (const path of Object.values(exports["."]))
        assert.ok(files.includes(path.slice(2)));
    assert.equal(dependencies, undefined);
    for (const file of files.filter((name) => name.endsWith(".js")))
        for (const from of matches(await read(`clients/js/${file}`), / from "([^"]*)";$/gm))
            assert.ok(files.includes(from.slice(2)), from);
    assert.match(await read("CMakeLists.txt"), new RegExp(`VERSION ${version}`));
});
