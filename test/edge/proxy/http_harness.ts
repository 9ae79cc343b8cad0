/**
 * An HTTP proxy between raw sockets on loopback. The datapath is faked by addresses: a client at 127.0.0.2 whose port is that of the
 * real server at 127.0.0.1 stands for the flow to it, as a handle does.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { type L7Record, type L7RuleOf, type ProxyDoors } from "../../../edge/proxy/doors.ts";
import { type RunningProxy, startHttpProxy } from "../../../edge/proxy/http_proxy.ts";
import type { RedirectedFlow } from "../../../src/datapath/redirect_view.ts";
import type { HttpRule } from "../../../src/policy/model.ts";

export const POLICY = "CiliumNetworkPolicy/shop/web";

/** One rule of one policy with these HTTP rules. */
export function rulesOf(...rules: HttpRule[]): readonly L7RuleOf[] {
  const rule = { index: 3, policy: POLICY, path: "spec.ingress[0].toPorts[0]", verdict: "allow", tier: 200 } as const;
  return [{ rule, l7: { kind: "http", rules } }];
}

export const ANY: readonly L7RuleOf[] = rulesOf({ headers: [] });

/** A server of raw bytes. */
export interface Backend {
  readonly port: number;
  /** all that it received, as latin1 */
  received: string;
  readonly sockets: Socket[];
  /** resolves when what it received fits */
  until(isEnough: (received: string) => boolean): Promise<string>;
  /** resolves when its last connection has ended */
  closed(): Promise<void>;
  stop(): Promise<void>;
}

/** @param onData told for each piece, with the connection and all that came on it */
export async function startBackend(onData: (socket: Socket, all: string) => void): Promise<Backend> {
  const waiting: (() => void)[] = [];
  const sockets: Socket[] = [];
  let open = 0;
  const wake = () => waiting.splice(0).forEach((check) => check());
  const server: Server = createServer({ allowHalfOpen: false }, (socket) => {
    sockets.push(socket);
    open++;
    let all = "";
    socket.on("data", (chunk: Uint8Array) => {
      const text = Buffer.from(chunk).toString("latin1");
      all += text;
      backend.received += text;
      onData(socket, all);
      wake();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      open--;
      wake();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const when = (isTrue: () => boolean) =>
    new Promise<void>((resolve) => {
      const check = () => isTrue() ? resolve() : void waiting.push(check);
      check();
    });
  const backend: Backend = {
    port: (server.address() as { port: number }).port,
    received: "",
    sockets,
    until: async (isEnough) => {
      await when(() => isEnough(backend.received));
      return backend.received;
    },
    closed: () => when(() => sockets.length > 0 && open === 0),
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return backend;
}

/** A server that answers every head with the same bytes. */
export function startAnswering(answer: string): Promise<Backend> {
  let answered = 0;
  return startBackend((socket, all) => {
    const heads = all.split("\r\n\r\n").length - 1;
    if (all.length === 0) answered = 0;
    for (; answered < heads; answered++) socket.write(answer, "latin1");
  });
}

export const OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

/** A client of raw bytes. */
export interface Client {
  readonly socket: Socket;
  received: string;
  send(text: string): void;
  /** resolves with all that came when it fits, or when the connection ends */
  until(isEnough: (received: string) => boolean): Promise<string>;
  /** resolves with all that came when the connection has ended */
  ended(): Promise<string>;
}

export async function openClient(proxyPort: number, handle: number, from = "127.0.0.2"): Promise<Client> {
  const waiting: (() => void)[] = [];
  const wake = () => waiting.splice(0).forEach((check) => check());
  const socket = connect({ host: "127.0.0.1", port: proxyPort, localAddress: from, localPort: handle });
  let isEnded = false;
  socket.on("data", (chunk: Uint8Array) => {
    client.received += Buffer.from(chunk).toString("latin1");
    wake();
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    isEnded = true;
    wake();
  });
  const client: Client = {
    socket,
    received: "",
    send: (text) => void socket.write(Buffer.from(text, "latin1")),
    until: (isEnough) =>
      new Promise((resolve) => {
        const check = () => isEnded || isEnough(client.received) ? resolve(client.received) : void waiting.push(check);
        check();
      }),
    ended: () => client.until(() => false),
  };
  await new Promise<void>((resolve) => {
    socket.once("connect", resolve);
    socket.once("close", () => resolve());
  });
  return client;
}

/** A proxy with faked doors. */
export interface Harness {
  readonly proxy: RunningProxy;
  readonly records: L7Record[];
  rules: readonly L7RuleOf[];
  /** rules by the identity of the other side, in place of `rules` */
  rulesOf: ((identity: number) => readonly L7RuleOf[]) | undefined;
  /** of the other side of every flow; the handle where there is none */
  identity: number | undefined;
  /** resolves when there are that many records */
  recorded(count: number): Promise<readonly L7Record[]>;
  /** A client of a backend. */
  open(backend: Pick<Backend, "port">): Promise<Client>;
}

export async function startHarness(rules: readonly L7RuleOf[] = ANY): Promise<Harness> {
  const records: L7Record[] = [];
  const waiting: (() => void)[] = [];
  const flowOf = (handle: number): RedirectedFlow => ({
    from: { address: "10.219.0.2", port: 40_000 },
    to: { address: "10.219.0.1", port: 80 },
    protocol: 6,
    direction: 0,
    identity: harness.identity ?? handle,
  });
  const doors: ProxyDoors = {
    flowOf,
    l7RulesFor: ({ identity }) => harness.rulesOf?.(identity) ?? harness.rules,
    clientAddress: () => "127.0.0.2",
    serverAddress: () => "127.0.0.1",
    record: (record) => {
      records.push(record);
      waiting.splice(0).forEach((check) => check());
    },
    log: { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} },
  };
  const proxy = await startHttpProxy(["127.0.0.1"], doors);
  const harness: Harness = {
    proxy,
    records,
    rules,
    rulesOf: undefined,
    identity: undefined,
    recorded: (count) =>
      new Promise((resolve) => {
        const check = () => records.length >= count ? resolve(records) : void waiting.push(check);
        check();
      }),
    open: (backend) => openClient(proxy.port, backend.port),
  };
  return harness;
}

/** Status codes of the answers in a text, in order. */
export function statusesOf(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3})/g)].map((match) => Number(match[1]));
}
