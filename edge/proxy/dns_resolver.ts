/**
 * The local resolver of `--dns-listen`: programs of this machine ask it, it asks the machine's name servers, under the rules that
 * policy has for a flow to them. For programs whose name server is not reached through the mesh, so that the datapath does not
 * see their questions.
 *
 * A server that policy lets be asked without DNS rules is asked, and nothing is learned: as in Cilium, only what was seen through
 * a DNS rule opens `toFQDNs`. A server that policy drops is not asked; when no other is left, the answer is a refusal.
 */
import { RCODE_REFUSED, RCODE_SERVER_FAILURE, readHead } from "../../src/fqdn/message.ts";
import type { DnsQuestion } from "../../src/fqdn/message.ts";
import { FORWARD, nameOfVerdict, REDIRECT } from "../../src/verdict.ts";
import { EdgeError, errnoOf, messageOf } from "../errors.ts";
import { type DnsClient, DnsDesk, type DnsErrand, type DnsOutcome, type DnsRoute } from "./dns_desk.ts";
import type { ResolverDoors } from "./dns_doors.ts";
import { type DnsHandler, listenDns } from "./dns_listen.ts";
import type { NameServers } from "./dns_servers.ts";
import {
  type AddressPort,
  type Asked,
  type DnsUpstream,
  plainAddress,
  TcpUpstream,
  UdpUpstream,
} from "./dns_upstream.ts";

/** The running resolver. */
export interface DnsResolver {
  readonly port: number;
  stop(): Promise<void>;
}

const UDP = 17;
/** One server gets so long before the next is asked beside it; glibc gives 5 s in all. */
const TRY_MS = 1_500;
/** Tries in all: each server once, or one server three times. */
const MAX_TRIES = 3;

/** A server and what policy says of the way to it. */
interface ServerRoute extends DnsRoute {
  readonly server: AddressPort;
}

/**
 * Starts the resolver.
 *
 * @param listen one address of this machine; port 0: any
 * @throws EdgeError EDGE_PORT_BUSY when another program listens there, else EDGE_NETWORK_FAILED
 */
export async function startDnsResolver(
  listen: AddressPort,
  servers: NameServers,
  doors: ResolverDoors,
): Promise<DnsResolver> {
  const desk = new DnsDesk(doors);
  const errands = new Set<Errand>();
  const handler = handlerOf(desk, servers, errands, doors);
  const listener = await listenDns(listen, handler, doors.timers).catch((error) => {
    const code = errnoOf(error) === "EADDRINUSE" ? "EDGE_PORT_BUSY" : "EDGE_NETWORK_FAILED";
    const where = listen.address.includes(":")
      ? `[${listen.address}]:${listen.port}`
      : `${listen.address}:${listen.port}`;
    throw new EdgeError(code, `Cannot listen for DNS on "${where}": ${messageOf(error)}`, {
      fix: "Choose another address or port with --dns-listen, or stop the program that holds it.",
    });
  });
  return {
    port: listener.port,
    stop: async () => {
      for (const errand of errands) errand.end();
      await listener.close();
    },
  };
}

function handlerOf(desk: DnsDesk, servers: NameServers, errands: Set<Errand>, doors: ResolverDoors): DnsHandler {
  const clientOf = (key: string, protocol: 6 | 17, answer: (message: Uint8Array) => void): DnsClient<ServerRoute> => ({
    key,
    routes: () => {
      const all = servers.current();
      if (all.length === 0) doors.log.warn("dns resolver knows no name server");
      return all.map((server) => routeTo(server, protocol, doors));
    },
    ask: (query, question, routes) => {
      const errand = new Errand(protocol, query, question, routes, doors);
      errands.add(errand);
      void errand.outcome.then(() => errands.delete(errand));
      return errand;
    },
    answer,
  });
  let connectionCount = 0;
  return {
    datagram: (message, from, answer) => {
      void desk.serve(message, clientOf(`udp ${from.address} ${from.port}`, 17, answer));
    },
    connection: () => {
      const key = `tcp ${connectionCount++}`;
      return {
        question: (message, answer) => desk.serve(message, clientOf(key, 6, answer)),
        closed: () => {},
      };
    },
  };
}

function routeTo(server: AddressPort, protocol: 6 | 17, doors: ResolverDoors): ServerRoute {
  const { verdict, flow } = doors.judge({ address: plainAddress(server.address), port: server.port }, protocol);
  if (verdict === FORWARD) return { server, flow, by: "open" };
  if (verdict === REDIRECT) return { server, flow, by: doors.l7RulesFor(flow) };
  return { server, flow, by: { refused: nameOfVerdict(verdict) } };
}

/** A question on its way to one server after the other; each is asked from one socket of its own, and may answer until the end. */
class Errand implements DnsErrand<ServerRoute> {
  readonly outcome: Promise<DnsOutcome<ServerRoute>>;
  readonly #protocol: 6 | 17;
  readonly #query: Uint8Array;
  readonly #question: DnsQuestion;
  readonly #routes: readonly ServerRoute[];
  readonly #doors: ResolverDoors;
  /** by server; undefined: not asked yet */
  readonly #ways: ({ readonly upstream: DnsUpstream; readonly asked: Asked } | undefined)[];
  #settle: (outcome: DnsOutcome<ServerRoute>) => void = () => {};
  /** what a server said that could not help: better than nothing, when no other can */
  #excuse: DnsOutcome<ServerRoute> | undefined;
  #tryCount = 0;
  #isOver = false;
  #cancelTimer = () => {};

  constructor(
    protocol: 6 | 17,
    query: Uint8Array,
    question: DnsQuestion,
    routes: readonly ServerRoute[],
    doors: ResolverDoors,
  ) {
    this.#protocol = protocol;
    this.#query = query;
    this.#question = question;
    this.#routes = routes;
    this.#doors = doors;
    this.#ways = routes.map(() => undefined);
    this.outcome = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.#tryNext();
  }

  repeat(): void {
    this.#ways[(this.#tryCount - 1) % this.#routes.length]?.asked.repeat();
  }

  /** Gives up now. */
  end(): void {
    this.#finish(this.#excuse ?? { route: this.#routes[0]!, answer: undefined });
  }

  #tryNext(): void {
    this.#cancelTimer();
    if (this.#isOver) return;
    if (this.#tryCount >= Math.max(MAX_TRIES, this.#routes.length)) return this.end();
    this.#cancelTimer = this.#doors.timers.after(TRY_MS, () => this.#tryNext());
    const index = this.#tryCount++ % this.#routes.length;
    const known = this.#ways[index];
    if (known === undefined || known.upstream.isClosed) this.#askAt(index);
    else if (this.#protocol === UDP) known.asked.repeat();
  }

  #askAt(index: number): void {
    const route = this.#routes[index]!;
    const upstream = this.#protocol === UDP ? new UdpUpstream(route.server) : new TcpUpstream(route.server);
    const asked = upstream.ask(this.#query, this.#question);
    this.#ways[index] = { upstream, asked };
    void asked.answer.then((answer) => this.#take({ route, answer }, index));
  }

  #take(outcome: DnsOutcome<ServerRoute>, index: number): void {
    if (this.#isOver) return;
    const rcode = outcome.answer === undefined ? undefined : readHead(outcome.answer)!.rcode;
    const isHelp = rcode !== undefined && rcode !== RCODE_SERVER_FAILURE && rcode !== RCODE_REFUSED;
    if (isHelp) return this.#finish(outcome);
    if (outcome.answer !== undefined) this.#excuse = outcome;
    // a server that fails at once is not asked again and again within one question
    if (this.#tryCount < this.#routes.length) {
      if (index === this.#tryCount - 1) this.#tryNext();
    } else if (this.#ways.every((way) => way === undefined || way.upstream.openCount === 0)) this.end();
  }

  #finish(outcome: DnsOutcome<ServerRoute>): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#cancelTimer();
    for (const way of this.#ways) way?.upstream.close();
    this.#settle(outcome);
  }
}
