// A recorder on Node and ws.
//
//     API_KEY=... NODE_PATH=... node on_ws.cjs PORT RECORDINGS_DIR
//
// As lean as it can be had: no compression, no check of UTF-8, audio gathered and
// written in one call to the system each 9,600 bytes. It leaves out signatures,
// timers, gaps, a journal, audio on disk before `closed`, a WAV.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { WebSocketServer } = require('ws');

const WRITE_BYTES = 9600;
const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const [port, recordings] = process.argv.slice(2);
const apiKey = Buffer.from(process.env.API_KEY);

function isKnown(key) {
  const given = Buffer.from(key ?? '');
  return given.length === apiKey.length && crypto.timingSafeEqual(given, apiKey);
}

class Recorder {
  constructor(socket) {
    this.socket = socket;
    this.session = '';
    this.seq = 0;
    this.fd = -1;
    this.chunks = [];
    this.waiting = 0;
  }

  takeAudio(data) {
    this.chunks.push(data);
    this.waiting += data.length;
    if (this.waiting >= WRITE_BYTES) this.write();
  }

  takeText(data) {
    const message = JSON.parse(data);
    const { type, parameters } = message;
    if (type === 'ping') {
      this.answer(message, 'pong', {});
    } else if (type === 'open') {
      this.open(message.id, parameters);
      this.answer(message, 'opened', { media: parameters.media.slice(0, 1) });
    } else if (type === 'close') {
      this.finish();
      this.answer(message, 'closed', {});
    }
  }

  open(session, { conversationId, participant }) {
    if (![session, conversationId, participant.id].every((id) => UUID.test(id))) {
      throw new Error('an id that is none');
    }
    this.session = session;
    const start = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
    const name = `${start}_${conversationId}_${participant.id}`;
    const folder = path.join(recordings, 'calls', name, 'audio');
    fs.mkdirSync(folder, { recursive: true });
    this.fd = fs.openSync(path.join(folder, `${session}.raw`), 'wx', 0o600);
  }

  answer(message, type, parameters) {
    this.seq += 1;
    this.socket.send(
      JSON.stringify({
        version: '2',
        id: this.session,
        type,
        seq: this.seq,
        clientseq: message.seq,
        parameters,
      }),
    );
  }

  write() {
    if (this.chunks.length) fs.writevSync(this.fd, this.chunks);
    this.chunks = [];
    this.waiting = 0;
  }

  finish() {
    if (this.fd < 0) return;
    this.write();
    fs.closeSync(this.fd);
    this.fd = -1;
  }
}

const server = http.createServer((request, response) => {
  response.writeHead(426).end();
});
const websockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  skipUTF8Validation: true,
});

server.on('upgrade', (request, socket, head) => {
  if (!isKnown(request.headers['x-api-key'])) {
    socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n');
    return;
  }
  websockets.handleUpgrade(request, socket, head, (websocket) => {
    const recorder = new Recorder(websocket);
    websocket.on('message', (data, isBinary) => {
      if (isBinary) recorder.takeAudio(data);
      else recorder.takeText(data);
    });
    websocket.on('close', () => recorder.finish());
    // `close` follows.
    websocket.on('error', () => {});
  });
});

process.on('SIGTERM', () => process.exit(0));
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
