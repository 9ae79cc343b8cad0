/** For tests of the DNS proxy: a name server on loopback, clients, doors that remember, and timers that fire when told to. */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { connect, createServer, type Server, type Socket as TcpSocket } from "node:net";
import * as dnsPacket from "dns-packet";
import type { RedirectedFlow } from "../../../src/datapath/redirect_view.ts";
import type { RuleRef } from "../../../src/policy/explain.ts";
import { FORWARD, type Verdict } from "../../../src/verdict.ts";
import type { Timers } from "../../../edge/agent/timers.ts";
import { frameOf, FrameReader, MAX_FRAME_BYTES } from "../../../edge/proxy/dns_frames.ts";
import type { ResolverDoors } from "../../../edge/proxy/dns_doors.ts";
import type { AddressPort } from "../../../edge/proxy/dns_upstream.ts";
import type { L7Record, L7RuleOf } from "../../../edge/proxy/doors.ts";

export const CLIENT = "127.0.0.1";
export const OWN = "127.0.0.4";
export const SERVER = "127.0.0.2";

export interface Asking {
  readonly name: string;
  readonly type?: dnsPacket.RecordType;
  readonly id?: number;
  readonly additionals?: dnsPacket.Answer[];
}

export function queryOf({ name, type = "A", id = 4711, additionals = [] }: Asking): Uint8Array {
  return new Uint8Array(dnsPacket.encode({
    type: "query",
    id,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type, name, class: "IN" }],
    additionals,
  }));
}

/** dns-packet tells the code, but not its types. */
export function decode(bytes: Uint8Array): dnsPacket.DecodedPacket & { readonly rcode: string } {
  return dnsPacket.decode(Buffer.from(bytes)) as dnsPacket.DecodedPacket & { readonly rcode: string };
}

/** An answer to a query: addresses or whole records. */
export function answerTo(query: Uint8Array, answers: readonly (string | dnsPacket.Answer)[], flags = 0): Uint8Array {
  const { id, questions } = decode(query);
  return new Uint8Array(dnsPacket.encode({
    type: "response",
    id: id!,
    flags,
    questions: questions!,
    answers: answers.map((one) =>
      typeof one === "string" ? { type: "A", name: questions![0]!.name, ttl: 60, data: one } : one
    ),
  }));
}

/** Sends octets back, from the asked address or, for UDP, from any other socket. */
export interface Exchange {
  readonly query: Uint8Array;
  readonly from: AddressPort;
  reply(bytes: Uint8Array): void;
}

/** A name server on UDP and TCP of one port. What it is asked waits in `next`, unless it has a script. */
export class NameServer {
  readonly address: string;
  readonly port: number;
  readonly connections = new Set<TcpSocket>();
  connectionCount = 0;
  readonly exchanges: Exchange[] = [];
  script: ((exchange: Exchange) => void) | undefined;
  readonly #udp: UdpSocket;
  readonly #tcp: Server;
  #wake: (() => void)[] = [];

  private constructor(address: string, port: number, udp: UdpSocket, tcp: Server) {
    this.address = address;
    this.port = port;
    this.#udp = udp;
    this.#tcp = tcp;
    udp.on("message", (message, { address, port }) => {
      const query = new Uint8Array(message);
      this.#take({ query, from: { address, port }, reply: (bytes) => udp.send(bytes, port, address) });
    });
    tcp.on("connection", (socket: TcpSocket) => {
      const frames = new FrameReader(MAX_FRAME_BYTES);
      const from = { address: socket.remoteAddress!, port: socket.remotePort! };
      this.connections.add(socket);
      this.connectionCount++;
      socket.on("close", () => this.connections.delete(socket));
      socket.on("error", () => {});
      socket.on("data", (chunk: Uint8Array) => {
        for (const query of frames.push(chunk) ?? []) {
          this.#take({ query, from, reply: (bytes) => socket.write(frameOf(bytes)) });
        }
      });
    });
  }

  static async start(address = SERVER): Promise<NameServer> {
    for (;;) {
      const tcp = createServer();
      await new Promise<void>((resolve) => tcp.listen({ host: address, port: 0 }, () => resolve()));
      const port = (tcp.address() as { port: number }).port;
      const udp = createSocket("udp4");
      const isBound = await new Promise<boolean>((resolve) => {
        udp.once("error", () => resolve(false));
        udp.bind({ address, port, exclusive: true }, () => resolve(true));
      });
      if (isBound) return new NameServer(address, port, udp, tcp);
      await new Promise<void>((resolve) => tcp.close(() => resolve()));
    }
  }

  /** The next question, when it comes. */
  async next(): Promise<Exchange> {
    while (this.exchanges.length === 0) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this.exchanges.shift()!;
  }

  /** Answers every question with these. */
  always(...answers: readonly (string | dnsPacket.Answer)[]): void {
    this.script = ({ query, reply }) => reply(answerTo(query, answers));
  }

  async stop(): Promise<void> {
    for (const socket of this.connections) socket.destroy();
    await Promise.all([
      new Promise<void>((resolve) => this.#udp.close(() => resolve())),
      new Promise<void>((resolve) => this.#tcp.close(() => resolve())),
    ]);
  }

  #take(exchange: Exchange): void {
    if (this.script !== undefined) return this.script(exchange);
    this.exchanges.push(exchange);
    for (const wake of this.#wake.splice(0)) wake();
  }
}

/** A program that asks by UDP from one socket. */
export class UdpClient {
  readonly #socket: UdpSocket;
  readonly port: number;
  readonly received: Uint8Array[] = [];
  #wake: (() => void)[] = [];

  private constructor(socket: UdpSocket) {
    this.#socket = socket;
    this.port = socket.address().port;
    socket.on("message", (message) => {
      this.received.push(new Uint8Array(message));
      for (const wake of this.#wake.splice(0)) wake();
    });
  }

  /** @param port 0: any */
  static async start(port = 0, address = CLIENT): Promise<UdpClient> {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.bind({ address, port, exclusive: true }, () => resolve());
    });
    return new UdpClient(socket);
  }

  send(bytes: Uint8Array, to: AddressPort): void {
    this.#socket.send(bytes, to.port, to.address);
  }

  async next(): Promise<Uint8Array> {
    while (this.received.length === 0) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this.received.shift()!;
  }

  ask(query: Uint8Array, to: AddressPort): Promise<Uint8Array> {
    this.send(query, to);
    return this.next();
  }

  stop(): Promise<void> {
    return new Promise((resolve) => this.#socket.close(() => resolve()));
  }
}

/** A program that asks over one TCP connection. */
export class TcpClient {
  readonly #socket: TcpSocket;
  readonly #frames = new FrameReader(MAX_FRAME_BYTES);
  readonly received: Uint8Array[] = [];
  isClosed = false;
  #wake: (() => void)[] = [];

  private constructor(socket: TcpSocket) {
    this.#socket = socket;
    const wake = () => {
      for (const one of this.#wake.splice(0)) one();
    };
    socket.on("error", () => {});
    socket.on("close", () => {
      this.isClosed = true;
      wake();
    });
    socket.on("data", (chunk: Uint8Array) => {
      this.received.push(...this.#frames.push(chunk) ?? []);
      wake();
    });
  }

  static async start(to: AddressPort, localPort = 0, localAddress = CLIENT): Promise<TcpClient> {
    const socket = connect({ host: to.address, port: to.port, localAddress, localPort });
    await new Promise<void>((resolve, reject) => {
      socket.once("error", reject);
      socket.once("connect", () => resolve());
    });
    return new TcpClient(socket);
  }

  write(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  send(query: Uint8Array): void {
    this.write(frameOf(query));
  }

  /** undefined: the connection is over */
  async next(): Promise<Uint8Array | undefined> {
    while (this.received.length === 0 && !this.isClosed) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this.received.shift();
  }

  async ended(): Promise<void> {
    while (!this.isClosed) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  endWriting(): void {
    this.#socket.end();
  }

  stop(): void {
    this.#socket.destroy();
  }
}

/** Timers that run only when a test says so. */
export class ManualTimers implements Timers {
  #tasks = new Set<{ readonly ms: number; readonly task: () => void }>();

  after(ms: number, task: () => void): () => void {
    const entry = { ms, task };
    this.#tasks.add(entry);
    return () => this.#tasks.delete(entry);
  }

  every(): () => void {
    throw new Error("nothing here runs for ever");
  }

  /** Runs every task that waits for so many milliseconds. @returns how many */
  fire(ms: number): number {
    const due = [...this.#tasks].filter((entry) => entry.ms === ms);
    for (const entry of due) {
      this.#tasks.delete(entry);
      entry.task();
    }
    return due.length;
  }
}

export const RULE: RuleRef = { index: 0, policy: "p", path: "spec.egress[0].toPorts[0]", verdict: "allow", tier: 200 };

export function dnsRules(...patterns: readonly string[]): readonly L7RuleOf[] {
  return [{ rule: RULE, l7: { kind: "dns", rules: patterns.map((pattern) => ({ pattern })) } }];
}

/** Doors that remember what they were given. Fields are what they answer. */
export class Doors implements ResolverDoors {
  readonly records: L7Record[] = [];
  readonly learned: { name: string; addresses: readonly string[]; ttlSeconds: number }[] = [];
  readonly faults: unknown[] = [];
  readonly timers = new ManualTimers();
  rules: readonly L7RuleOf[] = [];
  mentioned: readonly string[] = ["*"];
  reject: "refused" | "nameError" = "refused";
  verdict: (to: AddressPort, protocol: 6 | 17) => Verdict = () => FORWARD;
  /** what the datapath says of handles; default: every handle is a flow of the protocol that `protocol` says */
  flow: (handle: number) => RedirectedFlow | undefined = (handle) => flowOn(handle, this.protocol);
  protocol: 6 | 17 = 17;
  whenLearned: () => Promise<void> = () => Promise.resolve();
  #wake: (() => void)[] = [];

  readonly log = {
    debug: () => {},
    info: () => {},
    warn: (event: string, fields?: unknown) => this.faults.push([event, fields]),
    error: (event: string, fields?: unknown) => this.faults.push([event, fields]),
  };

  flowOf(handle: number): RedirectedFlow | undefined {
    return this.flow(handle);
  }

  l7RulesFor(): readonly L7RuleOf[] {
    return this.rules;
  }

  clientAddress(): string {
    return CLIENT;
  }

  serverAddress(): string {
    return SERVER;
  }

  record(record: L7Record): void {
    this.records.push(record);
    for (const wake of this.#wake.splice(0)) wake();
  }

  learn(name: string, addresses: readonly string[], ttlSeconds: number): Promise<void> {
    this.learned.push({ name, addresses, ttlSeconds });
    for (const wake of this.#wake.splice(0)) wake();
    return this.whenLearned();
  }

  patterns(): readonly string[] {
    return this.mentioned;
  }

  rejectCode(): "refused" | "nameError" {
    return this.reject;
  }

  unixMs(): number {
    return 1_700_000_000_000;
  }

  judge(to: AddressPort, protocol: 6 | 17) {
    return {
      verdict: this.verdict(to, protocol),
      flow: { from: { address: "10.0.0.1", port: 0 }, to, protocol, direction: 1 as const, identity: 2 },
    };
  }

  /** Waits until there are so many records. */
  async recorded(count: number): Promise<L7Record> {
    while (this.records.length < count) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this.records[count - 1]!;
  }

  async hasLearned(): Promise<void> {
    while (this.learned.length === 0) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }
}

export function flowOn(handle: number, protocol: 6 | 17): RedirectedFlow {
  return {
    from: { address: "10.0.0.1", port: handle },
    to: { address: "10.0.0.53", port: 53 },
    protocol,
    direction: 1,
    identity: 42,
  };
}
