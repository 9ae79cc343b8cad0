/**
 * Listens for DNS questions: UDP and TCP on one address and port. Each socket is bound to its one address, so that an answer leaves
 * with the source that the client asked (a wildcard socket would leave that to the kernel).
 */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { createServer, type Socket as TcpSocket } from "node:net";
import { frameOf, FrameReader } from "./dns_frames.ts";
import { MAX_QUERY_BYTES, type OneShots } from "./dns_doors.ts";
import { type AddressPort, closeQuietly } from "./dns_upstream.ts";

/** Takes what arrives. Nothing here may throw. */
export interface DnsHandler {
  /** @param message a copy @param answer sends octets back to where it came from */
  datagram(message: Uint8Array, from: AddressPort, answer: (message: Uint8Array) => void): void;
  /** @returns undefined to refuse the connection */
  connection(from: AddressPort): DnsConnection | undefined;
}

/** One TCP connection of a client. */
export interface DnsConnection {
  /** Takes a question; resolves when it is done with. @param message a copy */
  question(message: Uint8Array, answer: (message: Uint8Array) => void): Promise<void>;
  /** The connection is over, in whatever way. */
  closed(): void;
  /** Gives it the way to end the connection. */
  opened?(end: () => void): void;
}

/** Something that listens. */
export interface DnsListener {
  readonly port: number;
  close(): Promise<void>;
}

/** TCP clients of one listener; each holds a socket and little more than its unread answers. */
const MAX_CONNECTIONS = 64;
/** A connection without open questions is closed after so long (RFC 7766 §6.2.3). */
const IDLE_MS = 10_000;
/** A client that does not read its answers is cut off at so many octets. */
const MAX_UNREAD_BYTES = 131_072;
/** Answers of a TCP client that are still open when it asks for more. */
const MAX_OPEN_PER_CONNECTION = 64;

/**
 * @param at port 0: one that is free for both
 * @throws the system's error, with its `code`
 */
export async function listenDns(at: AddressPort, handler: DnsHandler, timers: OneShots): Promise<DnsListener> {
  // UDP first: Deno's error of a TCP listener does not tell an address that is not there from other faults
  const udp = await listenUdp(at, handler);
  const closeUdp = () => new Promise<void>((resolve) => udp.close(() => resolve()));
  try {
    const { port } = udp.address();
    const tcp = await listenTcp({ address: at.address, port }, handler, timers);
    let closing: Promise<unknown> | undefined;
    return {
      port,
      close: async () => {
        await (closing ??= Promise.all([tcp.close(), closeUdp()]));
      },
    };
  } catch (error) {
    await closeUdp();
    throw error;
  }
}

function listenUdp(at: AddressPort, handler: DnsHandler): Promise<UdpSocket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(at.address.includes(":") ? "udp6" : "udp4");
    socket.once("error", (error) => {
      closeQuietly(socket);
      reject(error);
    });
    socket.bind({ address: at.address, port: at.port, exclusive: true }, () => {
      socket.removeAllListeners("error");
      socket.on("error", () => {}); // of a datagram that could not be sent: its client asks again
      resolve(socket);
    });
    socket.on("message", (message, { address, port }) => {
      handler.datagram(new Uint8Array(message), { address, port }, (answer) => {
        try {
          socket.send(answer, port, address, () => {});
        } catch {
          // the listener was closed meanwhile
        }
      });
    });
  });
}

function listenTcp(at: AddressPort, handler: DnsHandler, timers: OneShots): Promise<{ close(): Promise<void> }> {
  const open = new Set<TcpSocket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const from = { address: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 };
    const connection = open.size < MAX_CONNECTIONS ? handler.connection(from) : undefined;
    if (connection === undefined) {
      socket.on("error", () => {});
      socket.destroy();
      return;
    }
    open.add(socket);
    socket.on("close", () => open.delete(socket));
    serveConnection(socket, connection, timers);
  });
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      for (const socket of open) socket.destroy();
    });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: at.address, port: at.port, exclusive: true }, () => {
      server.removeAllListeners("error");
      server.on("error", () => {}); // of one connection that could not be accepted
      resolve({ close });
    });
  });
}

function serveConnection(socket: TcpSocket, connection: DnsConnection, timers: OneShots): void {
  const frames = new FrameReader(MAX_QUERY_BYTES);
  let openCount = 0;
  let hasEnded = false;
  let cancelIdle = () => {};
  const endWhenDone = () => {
    if (openCount === 0) socket.destroy();
  };
  const touch = () => {
    cancelIdle();
    if (!socket.destroyed) cancelIdle = timers.after(IDLE_MS, () => openCount === 0 ? socket.destroy() : touch());
  };
  const answer = (message: Uint8Array) => {
    if (socket.destroyed) return;
    socket.write(frameOf(message));
    if (socket.writableLength > MAX_UNREAD_BYTES) socket.destroy();
  };
  const take = (message: Uint8Array) => {
    if (openCount >= MAX_OPEN_PER_CONNECTION) return socket.destroy();
    openCount++;
    void connection.question(message, answer).finally(() => {
      openCount--;
      touch();
      if (hasEnded && openCount === 0) socket.end();
    });
  };
  socket.on("data", (chunk: Uint8Array) => {
    touch();
    const messages = frames.push(chunk);
    if (messages === undefined) return void socket.destroy();
    for (const message of messages) if (!socket.destroyed) take(message);
  });
  socket.on("end", () => {
    hasEnded = true;
    endWhenDone();
  });
  socket.on("error", () => socket.destroy());
  socket.on("close", () => {
    cancelIdle();
    connection.closed();
  });
  connection.opened?.(() => socket.destroy());
  touch();
}
