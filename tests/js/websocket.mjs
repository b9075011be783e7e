// SPDX-License-Identifier: MIT
// The WebSocket class of this Node, or Debian's node-ws; the server is always that of node-ws.
const ws = await import("/usr/share/nodejs/ws/wrapper.mjs");

export const WebSocket = globalThis.WebSocket ?? ws.WebSocket;
export const { WebSocketServer } = ws;
export const ClientOfNodeWs = ws.WebSocket;
