// Calls an MCP server with the official TypeScript SDKs and prints what it saw as one JSON document.
//
//   sdk_client.mjs [--legacy | --modern] [--header 'NAME: VALUE']... [--call NAME [--arguments JSON]]
//                  [--progress] [--answer JSON] [--lines] (--url URL | -- COMMAND ARGUMENT...)
//
// --legacy uses @modelcontextprotocol/sdk (an `initialize` handshake), --modern pins 2026-07-28 in
// @modelcontextprotocol/client, and without either that client negotiates by itself. The packages
// are those that tests/fetch.sh installed; run it with target/test-packages/npm/node_modules/.bin/node
// or any node from version 20. With --lines it goes on in the same session: each line of stdin is a
// call, {"name": NAME, "arguments": {...}}, and a line of stdout says what came of it. A call that the server refuses is part of the document (`error`) and
// no failure; a session that cannot be opened is one, and ends with status 1.

import { createRequire } from 'node:module';
import path from 'node:path';
import readline from 'node:readline';
import { parseArgs } from 'node:util';

const MODERN = '2026-07-28';
const TIMEOUT_MS = 60_000;

const target = process.env.CARGO_TARGET_DIR ?? path.join(import.meta.dirname, '../../target');
const require = createRequire(path.resolve(target, 'test-packages/npm/package.json'));

const { values: options, positionals: command } = parseArgs({
  allowPositionals: true,
  options: {
    legacy: { type: 'boolean', default: false },
    modern: { type: 'boolean', default: false },
    url: { type: 'string' },
    header: { type: 'string', multiple: true, default: [] },
    call: { type: 'string' },
    arguments: { type: 'string', default: '{}' },
    progress: { type: 'boolean', default: false },
    answer: { type: 'string' },
    lines: { type: 'boolean', default: false },
  },
});
if (Boolean(options.url) === command.length > 0 || (options.legacy && options.modern)) {
  console.error('give either --url or -- COMMAND, and at most one of --legacy and --modern');
  process.exit(2);
}

/** Loads the SDK and hides in what the two differ. */
function load() {
  if (options.legacy) {
    const sdk = '@modelcontextprotocol/sdk';
    const { ElicitRequestSchema } = require(`${sdk}/types.js`);
    return {
      package: sdk,
      Client: require(`${sdk}/client/index.js`).Client,
      StdioClientTransport: require(`${sdk}/client/stdio.js`).StdioClientTransport,
      StreamableHTTPClientTransport: require(`${sdk}/client/streamableHttp.js`).StreamableHTTPClientTransport,
      elicitation: ElicitRequestSchema,
      clientOptions: {},
      call: (client, params, how) => client.callTool(params, undefined, how),
    };
  }
  const sdk = '@modelcontextprotocol/client';
  return {
    package: sdk,
    ...require(sdk),
    StdioClientTransport: require(`${sdk}/stdio`).StdioClientTransport,
    elicitation: 'elicitation/create',
    clientOptions: { versionNegotiation: { mode: options.modern ? { pin: MODERN } : 'auto' } },
    call: (client, params, how) => client.callTool(params, how),
  };
}

function transport(sdk) {
  if (options.url) {
    const headers = Object.fromEntries(options.header.map((header) => header.split(/: (.*)/s, 2)));
    return new sdk.StreamableHTTPClientTransport(new URL(options.url), { requestInit: { headers } });
  }
  return new sdk.StdioClientTransport({ command: command[0], args: command.slice(1), env: process.env });
}

/** The version that is negotiated; the older SDK tells it only to its transport. */
function watchVersion(wire) {
  const seen = {};
  const tell = wire.setProtocolVersion?.bind(wire);
  wire.setProtocolVersion = (version) => {
    seen.version = version;
    tell?.(version);
  };
  return seen;
}

async function allTools(client) {
  const tools = [];
  let cursor;
  do {
    const page = await client.listTools(cursor === undefined ? {} : { cursor });
    tools.push(...page.tools);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return tools;
}

async function call(sdk, client, name, given) {
  const progress = [];
  const how = { timeout: TIMEOUT_MS };
  if (options.progress) {
    how.onprogress = ({ progress: done, total, message }) => progress.push({ progress: done, total, message });
  }
  const seen = options.progress ? { progress } : {};
  try {
    const params = { name, arguments: given };
    return { ...seen, result: await sdk.call(client, params, how) };
  } catch (error) {
    if (typeof error.code !== 'number') throw error;
    return { ...seen, error: { code: error.code, message: error.message } };
  }
}

async function look() {
  const sdk = load();
  const answers = options.answer !== undefined;
  const capabilities = answers ? { elicitation: {} } : {};
  const client = new sdk.Client({ name: 'sdk-client', version: '1.0.0' }, { ...sdk.clientOptions, capabilities });
  if (answers) {
    const content = JSON.parse(options.answer);
    client.setRequestHandler(sdk.elicitation, () => ({ action: 'accept', content }));
  }
  const wire = transport(sdk);
  const negotiated = watchVersion(wire);
  await client.connect(wire, { timeout: TIMEOUT_MS });
  try {
    const seen = {
      sdk: { package: sdk.package, version: installedVersion(sdk.package) },
      protocolVersion: client.getNegotiatedProtocolVersion?.() ?? negotiated.version,
      server: client.getServerVersion() ?? null,
      tools: await allTools(client),
      ...(options.call === undefined ? {} : await call(sdk, client, options.call, JSON.parse(options.arguments))),
    };
    console.log(JSON.stringify(seen));
    if (!options.lines) return;
    for await (const line of readline.createInterface({ input: process.stdin })) {
      const asked = JSON.parse(line);
      console.log(JSON.stringify(await call(sdk, client, asked.name, asked.arguments)));
    }
  } finally {
    await client.close();
  }
}

function installedVersion(name) {
  const lock = require('./package-lock.json');
  return lock.packages[`node_modules/${name}`].version;
}

try {
  await look();
} catch (error) {
  console.log(JSON.stringify({ failure: `${error.name}: ${error.message}` }));
  process.exitCode = 1;
}
