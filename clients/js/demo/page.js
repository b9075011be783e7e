// SPDX-License-Identifier: MIT
// Shows what `spoke demo --web` publishes.
import { Sub, text } from "../spoke.js";

const TOPIC = "figures ";
const POINTS = 300; // ten a second, 30 seconds
const arrivals = [];
const load = [];
let last = null;

const $ = (id) => document.getElementById(id);
const show = (id, value) => { $(id).textContent = value; };

// CPU time in percent since the message before.
function loadSince(figures) {
    const past = last === null ? 0 : figures.seconds - last.seconds;
    return past > 0 ? (figures.cpu_ms - last.cpu_ms) / past / 10 : 0;
}

function draw() {
    const top = Math.max(1, ...load);
    show("top", `${top.toFixed(1)} %`);
    $("line").setAttribute("points",
        load.map((value, i) => `${300 - load.length + i},${98 - value / top * 94}`).join(" "));
}

function tabulate(counters) {
    $("counters").replaceChildren(...Object.entries(counters).filter(([, value]) => value > 0)
        .map(([name, value]) => {
            const row = document.createElement("tr");
            row.insertCell().textContent = name.replaceAll("_", " ");
            row.insertCell().textContent = value.toLocaleString("en");
            return row;
        }));
}

function update(figures) {
    const now = performance.now();

    arrivals.push(now);
    while (arrivals[0] < now - 1000)
        arrivals.shift();
    load.push(loadSince(figures));
    load.splice(0, load.length - POINTS);
    last = figures;
    show("subscribers", figures.socket.pipes_current);
    show("sent", figures.socket.messages_sent.toLocaleString("en"));
    show("rate", arrivals.length);
    show("cpu", `${(load.slice(-10).reduce((a, b) => a + b, 0) / Math.min(load.length, 10)).toFixed(1)} %`);
    show("memory", `${(figures.peak_kib / 1024).toFixed(1)} MiB`);
    show("seconds", `${figures.seconds.toFixed(0)} s`);
    tabulate({ ...figures.socket, ...figures.engine });
    draw();
}

const sub = new Sub("/figures", { topics: [TOPIC] });
const state = (on) => {
    show("state", on ? "connected" : "not connected: has the program ended?");
    $("state").classList.toggle("on", on);
};
sub.addEventListener("attached", () => state(true));
sub.addEventListener("detached", () => state(false));
sub.addEventListener("dialfailed", () => state(false));
for await (const body of sub)
    update(JSON.parse(text(body).slice(TOPIC.length)));
