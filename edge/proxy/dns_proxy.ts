/**
 * The DNS proxy: judges the questions of flows that the datapath steers here because a rule of their port has `rules.dns`, and
 * learns from the answers which addresses belong to the names of `toFQDNs`.
 *
 *     program -> datapath -> [PROXY_CLIENT:handle -> own:port]   the question
 *     [own:port of ours -> PROXY_SERVER:handle] -> datapath -> server the program asked   the same, if a rule allows it
 *
 * The datapath gives both connections the flow's own addresses again, so that server and program see each other. All questions of
 * a flow leave from one port of ours: the datapath knows one at a time.
 */
import type { RedirectedFlow } from "../../src/datapath/redirect_view.ts";
import { errnoOf } from "../errors.ts";
import { DnsDesk, type DnsErrand, type DnsRoute } from "./dns_desk.ts";
import { type DnsDoors, FLOW_WAIT_MS } from "./dns_doors.ts";
import { type DnsConnection, type DnsListener, listenDns } from "./dns_listen.ts";
import {
  type AddressPort,
  type Asked,
  type DnsUpstream,
  isSameAddress,
  TcpUpstream,
  UdpUpstream,
} from "./dns_upstream.ts";
import { isSameFlow, liveFlow } from "./live_flow.ts";

/** The running proxy. */
export interface DnsProxy {
  /** UDP and TCP port on each of the addresses */
  readonly port: number;
  /** Ends every flow that it has. */
  stop(): Promise<void>;
}

/** Ports tried until one is free on all addresses and for both protocols. */
const PORT_TRIES = 20;
/** A flow without open questions gives its socket back after so long: most programs ask once. */
const FLOW_IDLE_MS = 15_000;
/** Flows with a socket at a time: beyond, the one that was idle longest gives way, and none is opened while all are busy. */
const MAX_FLOW_SOCKETS = 256;

/**
 * Starts the proxy.
 *
 * @param addresses this node's mesh addresses, at most one of each family; they must be on a device already
 * @throws the system's error, with its `code`: an address that is not there, or no port that is free
 */
export async function startDnsProxy(addresses: readonly string[], doors: DnsDoors): Promise<DnsProxy> {
  const flows = new FlowSockets(doors);
  const desk = new DnsDesk(doors);
  const listeners = await listenEverywhere(addresses, (own) => handlerOf(own, desk, flows, doors), doors);
  return {
    port: listeners[0]!.port,
    stop: async () => {
      flows.closeAll();
      await Promise.all(listeners.map((listener) => listener.close()));
    },
  };
}

async function listenEverywhere(
  addresses: readonly string[],
  handlerOn: (own: string) => Parameters<typeof listenDns>[1],
  doors: DnsDoors,
): Promise<readonly DnsListener[]> {
  for (let tries = 1;; tries++) {
    const listeners: DnsListener[] = [];
    try {
      for (const address of addresses) {
        const port = listeners[0]?.port ?? 0;
        listeners.push(await listenDns({ address, port }, handlerOn(address), doors.timers));
      }
      return listeners;
    } catch (error) {
      await Promise.all(listeners.map((listener) => listener.close()));
      if (errnoOf(error) !== "EADDRINUSE" || tries === PORT_TRIES) throw error;
    }
  }
}

function handlerOf(own: string, desk: DnsDesk, flows: FlowSockets, doors: DnsDoors): Parameters<typeof listenDns>[1] {
  const family = own.includes(":") ? 6 : 4;
  const clientAddress = doors.clientAddress(family);
  /** The flow of a client, if the datapath made it. */
  const flowOf = (from: AddressPort, protocol: 6 | 17) => {
    if (!isSameAddress(from.address, clientAddress)) return undefined;
    const flow = doors.flowOf(from.port);
    return flow?.protocol === protocol ? flow : undefined;
  };
  const routesOf = (flow: RedirectedFlow): readonly DnsRoute[] => [{ flow, by: doors.l7RulesFor(flow) }];
  return {
    datagram: (message, from, answer) => {
      const flow = flowOf(from, 17);
      if (flow === undefined) return;
      void desk.serve(message, {
        key: `${family} ${from.port}`,
        routes: () => routesOf(flow),
        ask: (query, question, [route]) => {
          const upstream = flows.socketOf(own, family, from.port, flow);
          return errandOf(route!, upstream?.ask(query, question), doors);
        },
        answer: (octets) => {
          // the handle may stand for another flow by now
          if (isSameFlow(doors.flowOf(from.port), flow)) answer(octets);
        },
      });
    },
    connection: (from) => {
      const flow = flowOf(from, 6);
      return flow === undefined ? undefined : new FlowConnection(own, from.port, flow, desk, doors, routesOf);
    },
  };
}

/** Waits for an answer as long as a redirected flow does. */
function errandOf(route: DnsRoute, asked: Asked | undefined, doors: DnsDoors): DnsErrand<DnsRoute> {
  if (asked === undefined) return { outcome: Promise.resolve({ route, answer: undefined }), repeat: () => {} };
  let isSilent = false;
  const cancel = doors.timers.after(FLOW_WAIT_MS, () => {
    isSilent = true;
    asked.cancel();
  });
  const outcome = asked.answer.then((answer) => {
    cancel();
    return { route, answer, isSilent };
  });
  return { outcome, repeat: () => asked.repeat() };
}

/** A redirected TCP connection: one connection to the server, opened with the first question that is allowed. */
class FlowConnection implements DnsConnection {
  readonly #own: string;
  readonly #handle: number;
  readonly #flow: RedirectedFlow;
  readonly #desk: DnsDesk;
  readonly #doors: DnsDoors;
  readonly #routesOf: (flow: RedirectedFlow) => readonly DnsRoute[];
  #upstream: TcpUpstream | undefined;
  #end = () => {};

  constructor(
    own: string,
    handle: number,
    flow: RedirectedFlow,
    desk: DnsDesk,
    doors: DnsDoors,
    routesOf: (flow: RedirectedFlow) => readonly DnsRoute[],
  ) {
    this.#own = own;
    this.#handle = handle;
    this.#flow = flow;
    this.#desk = desk;
    this.#doors = doors;
    this.#routesOf = routesOf;
  }

  opened(end: () => void): void {
    this.#end = end;
  }

  question(message: Uint8Array, answer: (message: Uint8Array) => void): Promise<void> {
    return this.#desk.serve(message, {
      key: `tcp ${this.#own} ${this.#handle}`,
      routes: () => this.#routesOf(liveFlow(this.#doors, this.#handle, this.#flow)),
      ask: (query, question, [route]) => errandOf(route!, this.#server().ask(query, question), this.#doors),
      answer,
    });
  }

  closed(): void {
    this.#upstream?.close();
  }

  /** The server closes: so do we, as the program would see it without us. */
  #server(): TcpUpstream {
    const family = this.#own.includes(":") ? 6 : 4;
    const server = { address: this.#doors.serverAddress(family), port: this.#handle };
    return this.#upstream ??= new TcpUpstream(server, this.#own, () => this.#end());
  }
}

interface FlowSocket {
  readonly flow: RedirectedFlow;
  readonly upstream: DnsUpstream;
  cancelIdle: () => void;
}

/** The UDP sockets of redirected flows, one each, while they have questions open and a while longer. */
class FlowSockets {
  readonly #doors: DnsDoors;
  /** family and handle -> socket, in the order of last use */
  readonly #byFlow = new Map<string, FlowSocket>();

  constructor(doors: DnsDoors) {
    this.#doors = doors;
  }

  /** The flow's socket; undefined when there are too many. */
  socketOf(own: string, family: 4 | 6, handle: number, flow: RedirectedFlow): DnsUpstream | undefined {
    const key = `${family} ${handle}`;
    const known = this.#byFlow.get(key);
    if (known !== undefined && !known.upstream.isClosed && isSameFlow(known.flow, flow)) {
      this.#byFlow.delete(key);
      this.#byFlow.set(key, known);
      this.#keepBusy(key, known);
      return known.upstream;
    }
    if (known !== undefined) this.#close(key, known);
    if (this.#byFlow.size >= MAX_FLOW_SOCKETS && !this.#makeRoom()) return undefined;
    const server = { address: this.#doors.serverAddress(family), port: handle };
    const socket: FlowSocket = { flow, upstream: new UdpUpstream(server, own), cancelIdle: () => {} };
    this.#byFlow.set(key, socket);
    this.#keepBusy(key, socket);
    return socket.upstream;
  }

  closeAll(): void {
    for (const [key, socket] of this.#byFlow) this.#close(key, socket);
  }

  #keepBusy(key: string, socket: FlowSocket): void {
    socket.cancelIdle();
    socket.cancelIdle = this.#doors.timers.after(FLOW_IDLE_MS, () => {
      if (socket.upstream.openCount === 0) this.#close(key, socket);
      else this.#keepBusy(key, socket);
    });
  }

  #makeRoom(): boolean {
    for (const [key, socket] of this.#byFlow) {
      if (socket.upstream.openCount > 0) continue;
      this.#close(key, socket);
      return true;
    }
    return false;
  }

  #close(key: string, socket: FlowSocket): void {
    socket.cancelIdle();
    socket.upstream.close();
    if (this.#byFlow.get(key) === socket) this.#byFlow.delete(key);
  }
}
