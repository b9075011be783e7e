// SPDX-License-Identifier: MIT
// What the client does with a real peer: the same code in Node and in a page.  `peers` starts programs:
// await peers.start(pattern) gives {url, id}; write(id, line), lines(id, count), kill(id), restart(id).

export function equal(actual, expected, what) {
    const [got, wanted] = [JSON.stringify(actual), JSON.stringify(expected)];
    if (got !== wanted)
        throw new Error(`${what}: ${got} instead of ${wanted}`);
}

// Until `probe` gives something; the runner's time limit ends it.
export async function until(probe) {
    for (;;) {
        const value = await probe();
        if (value)
            return value;
        await new Promise((resolve) => setTimeout(resolve, 10));
    }
}

const wait = { timeout: 30_000 };

export function makeScenarios(spoke, options) {
    const { text } = spoke;

    // Receives until `last` has come.
    async function receiveTo(socket, last) {
        const got = [];
        for await (const body of socket.messages({ signal: AbortSignal.timeout(wait.timeout) })) {
            got.push(text(body));
            if (got.at(-1) === last)
                break;
        }
        return got;
    }

    async function roundTrips(peers, pattern, Class) {
        const { url, id } = await peers.start(pattern);
        const socket = new Class(url, options);
        const big = new Uint8Array(200_000).map((_, i) => i);

        await socket.connected(wait);
        for (const body of ["hello", "", "grüße"]) {
            await socket.send(body, wait);
            equal(text(await socket.receive(wait)), body, pattern);
        }
        await socket.send(big, wait);
        equal([...await socket.receive(wait)], [...big], "200 000 bytes");
        equal(await socket.close(), { messages: 0, bytes: 0 }, "close");
        await peers.kill(id);
    }

    return {
        async "req: a hundred requests at once, each with its own reply"(peers) {
            const { url, id } = await peers.start("rep");
            const req = new spoke.Req(url, options);
            const asked = Array.from({ length: 100 }, (_, i) => `question ${i}`);
            const replies = await Promise.all(asked.map((body) => req.request(body, wait)));
            equal(replies.map(text), asked, "replies");
            await req.close();
            await peers.kill(id);
        },

        async "req: the server is killed and started again, requests go on"(peers) {
            const { url, id } = await peers.start("rep");
            const req = new spoke.Req(url, { reconnectTime: 20, ...options });
            equal(text(await req.request("before", wait)), "before", "reply");
            await peers.kill(id);
            await until(() => req.peers === 0);
            const during = req.request("while it is gone", wait);
            await peers.restart(id);
            equal(text(await during), "while it is gone", "reply");
            equal(text(await req.request("after", wait)), "after", "reply");
            equal(req.stats.pipesAttached, 2, "connections");
            await req.close();
            await peers.kill(id);
        },

        async "rep: answers what a server asks"(peers) {
            const { url, id } = await peers.start("req");
            const rep = new spoke.Rep(url, options);
            await peers.write(id, "are you there?");
            const question = await rep.receive(wait);
            equal(text(question.body), "are you there?", "question");
            await question.reply("yes");
            equal(await peers.lines(id, 1), ["yes"], "answer");
            await rep.close();
            await peers.kill(id);
        },

        async "sub: what is subscribed to, in order"(peers) {
            const { url, id } = await peers.start("pub");
            const sub = new spoke.Sub(url, { topics: ["even", "end"], ...options });
            await sub.connected(wait);
            // The publisher may take us for connected a little later: until something arrives.
            const first = sub.receive(wait);
            await until(async () => {
                await peers.write(id, "even hello");
                return Promise.race([first, new Promise((r) => setTimeout(r, 50, null))]);
            });
            for (let i = 0; i < 10; i++)
                await peers.write(id, `${i % 2 ? "odd" : "even"} ${i}`);
            await peers.write(id, "end");
            const got = (await receiveTo(sub, "end")).filter((line) => line !== "even hello");
            equal(got, ["even 0", "even 2", "even 4", "even 6", "even 8", "end"], "received");
            await sub.close();
            await peers.kill(id);
        },

        async "pub: to a server that subscribes"(peers) {
            const { url, id } = await peers.start("sub");
            const pub = new spoke.Pub(url, options);
            await pub.connected(wait);
            await pub.send("one");
            await pub.send("two");
            equal(await peers.lines(id, 2), ["one", "two"], "lines");
            await pub.close();
            await peers.kill(id);
        },

        async "push: a thousand messages, none lost, in order, also those sent before it connects"(peers) {
            const { url, id } = await peers.start("pull");
            const push = new spoke.Push(url, options);
            const sent = Array.from({ length: 1000 }, (_, i) => `job ${i}`);
            for (const body of sent)
                await push.send(body, wait);
            equal(await push.close(), { messages: 0, bytes: 0 }, "close");
            equal(await peers.lines(id, 1000), sent, "lines");
            await peers.kill(id);
        },

        async "pull: what a server pushes"(peers) {
            const { url, id } = await peers.start("push");
            const pull = new spoke.Pull(url, options);
            for (const line of ["one", "two", "three"])
                await peers.write(id, line);
            equal(await receiveTo(pull, "three"), ["one", "two", "three"], "received");
            await pull.close();
            await peers.kill(id);
        },

        "pair: both ways": (peers) => roundTrips(peers, "pair", spoke.Pair),
        "pair1: both ways": (peers) => roundTrips(peers, "pair1", spoke.Pair1),
        "bus: both ways": (peers) => roundTrips(peers, "bus", spoke.Bus),

        async "surveyor: two servers answer, the survey ends"(peers) {
            const two = [await peers.start("respondent"), await peers.start("respondent")];
            const surveyor = new spoke.Surveyor(two.map(({ url }) => url), options);
            await until(() => surveyor.peers === 2);
            const got = [];
            for await (const answer of surveyor.survey("who?", { time: 30_000 })) {
                got.push(text(answer));
                if (got.length === 2)
                    break;
            }
            equal(got, ["who?", "who?"], "answers");
            for (const { id } of two)
                await peers.kill(id);
            await until(() => surveyor.peers === 0);
            const none = [];
            for await (const answer of surveyor.survey("anybody?", { time: 20 }))
                none.push(answer);
            equal(none, [], "answers");
            await surveyor.close();
        },

        async "respondent: answers a server's survey"(peers) {
            const { url, id } = await peers.start("surveyor");
            const respondent = new spoke.Respondent(url, options);
            await respondent.connected(wait);
            // As above: a survey asks those who are there, and has its time: until there is an answer.
            (async () => {
                for await (const question of respondent)
                    await question.reply("me");
            })();
            const answer = peers.lines(id, 1);
            await until(async () => {
                await peers.write(id, "who?");
                return Promise.race([answer, new Promise((r) => setTimeout(r, 1100, null))]);
            });
            equal(await answer, ["me"], "answers");
            await respondent.close();
            await peers.kill(id);
        },
    };
}
