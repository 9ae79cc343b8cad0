/**
 * Asks a DNS server from a socket of our own. An answer counts only when it comes from that server, with the id of a question that
 * is open, and repeats the question (RFC 5452 §9.1); ids are random, the port is the kernel's choice. What does not count is
 * ignored, and the question stays open. By UDP no answer is asked for that would come in fragments: the datapath drops those of flows
 * that go through a proxy.
 */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { connect, type Socket as TcpSocket } from "node:net";
import { canonicalAddress } from "../../src/fqdn/cache.ts";
import {
  type DnsQuestion,
  isSameQuestion,
  limitUdpAnswer,
  RCODE_FORMAT_ERROR,
  RCODE_NOT_IMPLEMENTED,
  readHead,
  withId,
} from "../../src/fqdn/message.ts";
import { frameOf, FrameReader, MAX_FRAME_BYTES } from "./dns_frames.ts";

/** Where a server or a listener is. */
export interface AddressPort {
  /** text; a link-local IPv6 address may carry its zone */
  readonly address: string;
  readonly port: number;
}

/** A question that was sent. */
export interface Asked {
  /** octets of the answer, with an id that is not the asker's; undefined: there will be none */
  readonly answer: Promise<Uint8Array | undefined>;
  /** Sends it once more. */
  repeat(): void;
  /** Nobody waits any more: `answer` resolves to undefined. */
  cancel(): void;
}

/** A way to one server. */
export interface DnsUpstream {
  /** @param question as read from `query` */
  ask(query: Uint8Array, question: DnsQuestion): Asked;
  /** questions without an answer */
  readonly openCount: number;
  readonly isClosed: boolean;
  /** Every open question ends without an answer. */
  close(): void;
}

/** Questions open on one socket: ids are 16 bits, and a random one shall be free at the first try. */
const MAX_OPEN = 1024;

/** The questions of one socket that wait for an answer, by the id that they were sent with. */
class OpenQuestions {
  readonly #byId = new Map<number, { question: DnsQuestion; settle: (answer: Uint8Array | undefined) => void }>();

  get count(): number {
    return this.#byId.size;
  }

  /** @param send puts a message on the wire */
  add(query: Uint8Array, question: DnsQuestion, send: (message: Uint8Array) => void): Asked {
    if (this.#byId.size >= MAX_OPEN) return NOT_ASKED;
    const id = this.#freeId();
    const message = withId(query, id);
    const answer = new Promise<Uint8Array | undefined>((resolve) => {
      this.#byId.set(id, {
        question,
        settle: (bytes) => {
          this.#byId.delete(id);
          resolve(bytes);
        },
      });
    });
    send(message);
    const settle = this.#byId.get(id)?.settle; // gone when sending failed at once
    return {
      answer,
      repeat: () => {
        if (settle !== undefined && this.#byId.get(id)?.settle === settle) send(message);
      },
      cancel: () => {
        if (settle !== undefined && this.#byId.get(id)?.settle === settle) settle(undefined);
      },
    };
  }

  /** Gives an answer to the question that it belongs to, if there is one. */
  take(message: Uint8Array): void {
    const head = readHead(message);
    if (head === undefined || !head.isResponse || head.opcode !== 0) return;
    const open = this.#byId.get(head.id);
    if (open === undefined) return;
    // a server that cannot read a question may leave it out (RFC 6891 §7)
    const isBare = head.questionCount === 0 &&
      (head.rcode === RCODE_FORMAT_ERROR || head.rcode === RCODE_NOT_IMPLEMENTED);
    const isSame = head.questionCount === 1 && head.question !== undefined &&
      isSameQuestion(head.question, open.question);
    if (isBare || isSame) open.settle(message);
  }

  endAll(): void {
    for (const open of [...this.#byId.values()]) open.settle(undefined);
  }

  #freeId(): number {
    const draw = new Uint16Array(1);
    do crypto.getRandomValues(draw); while (this.#byId.has(draw[0]!));
    return draw[0]!;
  }
}

const NOT_ASKED: Asked = { answer: Promise.resolve(undefined), repeat: () => {}, cancel: () => {} };

/** A server by UDP, from one socket. It closes by itself when the socket fails. */
export class UdpUpstream implements DnsUpstream {
  readonly #open = new OpenQuestions();
  readonly #socket: UdpSocket;
  readonly #server: AddressPort;
  #isBound = false;
  #isClosed = false;
  #waiting: Uint8Array[] = [];

  /**
   * @param server whom it asks
   * @param from   address to ask from; absent: the kernel's choice
   */
  constructor(server: AddressPort, from?: string) {
    this.#server = server;
    const isIpv6 = server.address.includes(":");
    this.#socket = createSocket(isIpv6 ? "udp6" : "udp4");
    this.#socket.on("error", () => this.close());
    this.#socket.on("message", (message, sender) => {
      if (sender.port !== server.port || !isSameAddress(sender.address, server.address)) return;
      this.#open.take(new Uint8Array(message));
    });
    this.#socket.bind({ address: from ?? (isIpv6 ? "::" : "0.0.0.0"), port: 0, exclusive: true }, () => this.#bound());
  }

  get openCount(): number {
    return this.#open.count;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  ask(query: Uint8Array, question: DnsQuestion): Asked {
    if (this.#isClosed) return NOT_ASKED;
    return this.#open.add(limitUdpAnswer(query), question, (message) => this.#send(message));
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#waiting = [];
    closeQuietly(this.#socket);
    this.#open.endAll();
  }

  #bound(): void {
    this.#isBound = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const message of waiting) this.#send(message);
  }

  #send(message: Uint8Array): void {
    if (this.#isClosed) return;
    if (!this.#isBound) {
      this.#waiting.push(message);
      return;
    }
    try {
      this.#socket.send(message, this.#server.port, this.#server.address, (error) => {
        if (error) this.close();
      });
    } catch {
      this.close();
    }
  }
}

/** A server by TCP, over one connection. It closes by itself when the connection ends. */
export class TcpUpstream implements DnsUpstream {
  readonly #open = new OpenQuestions();
  readonly #socket: TcpSocket;
  readonly #onClosed: () => void;
  #isClosed = false;

  /**
   * @param server   whom it asks
   * @param from     address to ask from; absent: the kernel's choice
   * @param onClosed runs once, when it is closed in whatever way
   */
  constructor(server: AddressPort, from?: string, onClosed: () => void = () => {}) {
    this.#onClosed = onClosed;
    const frames = new FrameReader(MAX_FRAME_BYTES);
    this.#socket = connect({
      host: server.address,
      port: server.port,
      ...(from === undefined ? {} : { localAddress: from }),
    });
    this.#socket.setNoDelay(true);
    this.#socket.on("error", () => this.close());
    this.#socket.on("end", () => this.close());
    this.#socket.on("close", () => this.close());
    this.#socket.on("data", (chunk: Uint8Array) => {
      for (const message of frames.push(chunk) ?? []) this.#open.take(message);
    });
  }

  get openCount(): number {
    return this.#open.count;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  ask(query: Uint8Array, question: DnsQuestion): Asked {
    if (this.#isClosed) return NOT_ASKED;
    return this.#open.add(query, question, (message) => {
      if (!this.#isClosed) this.#socket.write(frameOf(message));
    });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#socket.destroy();
    this.#open.endAll();
    this.#onClosed();
  }
}

/** Whether two texts are one address, zones aside. */
export function isSameAddress(a: string, b: string): boolean {
  return a === b || plainAddress(a) === plainAddress(b);
}

/** The one text of an address without its zone; what is no address stays as it is. */
export function plainAddress(text: string): string {
  const zone = text.indexOf("%");
  const bare = zone < 0 ? text : text.slice(0, zone);
  return canonicalAddress(bare) ?? bare;
}

/** A socket that failed to bind may not be closed twice on every runtime. */
export function closeQuietly(socket: UdpSocket): void {
  try {
    socket.close();
  } catch {
    // it is closed already: nothing is left to do
  }
}
