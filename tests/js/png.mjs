// SPDX-License-Identifier: MIT
// The pixels of a PNG with 8 bits for each of 3 or 4 channels, not interlaced, as Chromium makes them.
import { inflateSync } from "node:zlib";

function chunks(png) {
    const found = {};

    for (let at = 8; at < png.length;) {
        const size = png.readUInt32BE(at);
        const type = png.toString("latin1", at + 4, at + 8);
        (found[type] ??= []).push(png.subarray(at + 8, at + 8 + size));
        at += size + 12;
    }
    return found;
}

function paeth(left, up, corner) {
    const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
    return a <= b && a <= c ? left : b <= c ? up : corner;
}

/** {width, height, pixels}: each pixel is a number, 0xRRGGBB. */
export function decode(png) {
    const { IHDR: [head], IDAT } = chunks(png);
    const [width, height] = [head.readUInt32BE(0), head.readUInt32BE(4)];
    const channels = { 2: 3, 6: 4 }[head[9]];
    if (head[8] !== 8 || channels === undefined || head[12] !== 0)
        throw new Error("another kind of PNG");
    const data = inflateSync(Buffer.concat(IDAT));
    const stride = width * channels;
    const pixels = [];
    let above = new Uint8Array(stride);

    for (let y = 0; y < height; y++) {
        const filter = data[y * (stride + 1)];
        const line = Uint8Array.from(data.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1)));
        for (let x = 0; x < stride; x++) {
            const left = x >= channels ? line[x - channels] : 0;
            const corner = x >= channels ? above[x - channels] : 0;
            line[x] += [0, left, above[x], (left + above[x]) >> 1, paeth(left, above[x], corner)][filter];
        }
        for (let x = 0; x < stride; x += channels)
            pixels.push(line[x] << 16 | line[x + 1] << 8 | line[x + 2]);
        above = line;
    }
    return { width, height, pixels };
}
