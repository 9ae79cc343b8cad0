/** The local resolver on loopback, on every runtime; policy is played by the doors. */
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type DnsResolver, startDnsResolver } from "../../../edge/proxy/dns_resolver.ts";
import { fixedServers } from "../../../edge/proxy/dns_servers.ts";
import { DROP_POLICY_DENIED, DROP_PROXY_REFUSED, FORWARD, REDIRECT } from "../../../src/verdict.ts";
import { answerTo, decode, dnsRules, Doors, NameServer, queryOf, RULE, TcpClient, UdpClient } from "./dns_fakes.ts";

const LISTEN = { address: "127.0.0.4", port: 0 };
const TRY_MS = 1500;

let doors: Doors;
let first: NameServer;
let second: NameServer;
let resolver: DnsResolver;
let client: UdpClient;
let at: { address: string; port: number };

beforeEach(async () => {
  doors = new Doors();
  first = await NameServer.start("127.0.0.2");
  second = await NameServer.start("127.0.0.3");
  client = await UdpClient.start();
  await startWith(first);
});

afterEach(async () => {
  await Promise.all([client.stop(), first.stop(), second.stop(), resolver.stop()]);
  expect(doors.faults).toEqual([]);
});

async function startWith(...servers: readonly NameServer[]): Promise<void> {
  if (resolver !== undefined) await resolver.stop();
  resolver = await startDnsResolver(LISTEN, fixedServers(servers, LISTEN), doors);
  at = { address: LISTEN.address, port: resolver.port };
}

describe("a question to the local resolver", () => {
  it("is asked at the name server, with an id of ours, and answered with its own", async () => {
    client.send(queryOf({ name: "www.example.com", id: 7 }), at);
    const { query, from, reply } = await first.next();
    expect(from.port).not.toBe(at.port);
    expect(query.subarray(2)).toEqual(queryOf({ name: "www.example.com" }).subarray(2));
    reply(answerTo(query, ["192.0.2.1"]));
    expect(decode(await client.next())).toMatchObject({ id: 7, answers: [{ data: "192.0.2.1" }] });
  });

  it("leaves from another port each time", async () => {
    const ports = new Set<number>();
    for (let id = 1; id <= 10; id++) {
      client.send(queryOf({ name: "www.example.com", id }), at);
      ports.add((await first.next()).from.port);
    }
    expect(ports.size).toBe(10);
  });

  it("to a server that policy simply allows teaches nothing, as in Cilium", async () => {
    first.always("192.0.2.1");
    doors.rules = dnsRules("other.");
    expect(decode(await client.ask(queryOf({ name: "www.example.com" }), at)).rcode).toBe("NOERROR");
    expect(doors.learned).toEqual([]);
    const record = await doors.recorded(1);
    expect(record).toMatchObject({ verdict: FORWARD, flow: { to: { address: first.address, port: first.port } } });
    expect(record.rule).toBeUndefined();
  });

  it("to a server behind DNS rules is judged by them, and its answer teaches", async () => {
    first.always("192.0.2.1");
    doors.verdict = () => REDIRECT;
    doors.rules = dnsRules("www.example.com.");
    expect(decode(await client.ask(queryOf({ name: "www.example.com" }), at)).rcode).toBe("NOERROR");
    expect(doors.learned).toEqual([{ name: "www.example.com.", addresses: ["192.0.2.1"], ttlSeconds: 60 }]);
    expect(decode(await client.ask(queryOf({ name: "www.evil.com" }), at)).rcode).toBe("REFUSED");
    expect(doors.records).toMatchObject([{ verdict: FORWARD, rule: RULE }, { verdict: DROP_PROXY_REFUSED }]);
  });

  it("is refused when policy drops the way to every server, and says why to a client with EDNS", async () => {
    doors.verdict = () => DROP_POLICY_DENIED;
    const additionals = [{
      type: "OPT" as const,
      name: "." as const,
      udpPayloadSize: 1400,
      extendedRcode: 0,
      ednsVersion: 0,
      flags: 0,
      flag_do: false,
      options: [],
    }];
    const bytes = await client.ask(queryOf({ name: "www.example.com", additionals }), at);
    expect(decode(bytes).rcode).toBe("REFUSED");
    expect(new TextDecoder().decode(bytes)).toContain("edgemesh: policy drops the way there: POLICY_DENIED");
    expect(await doors.recorded(1)).toMatchObject({ verdict: DROP_PROXY_REFUSED });
    expect(first.exchanges).toEqual([]);
  });

  it("goes only to the servers that policy allows", async () => {
    await startWith(first, second);
    doors.verdict = ({ address }) => address === first.address ? DROP_POLICY_DENIED : FORWARD;
    second.always("192.0.2.2");
    expect(decode(await client.ask(queryOf({ name: "a.b" }), at)).answers).toMatchObject([{ data: "192.0.2.2" }]);
    expect(first.exchanges).toEqual([]);
  });

  it("goes to the next server when one is silent, and the first may still answer", async () => {
    await startWith(first, second);
    client.send(queryOf({ name: "a.b" }), at);
    const late = await first.next();
    expect(doors.timers.fire(TRY_MS)).toBe(1);
    await second.next();
    late.reply(answerTo(late.query, ["192.0.2.1"]));
    expect(decode(await client.next()).answers).toMatchObject([{ data: "192.0.2.1" }]);
    expect((await doors.recorded(1)).flow.to.address).toBe(first.address);
    expect(doors.timers.fire(TRY_MS)).toBe(0);
  });

  it("goes to the next server at once when one fails, and what it said is the answer when all do", async () => {
    await startWith(first, second);
    const failing = ({ query, reply }: { query: Uint8Array; reply(bytes: Uint8Array): void }) =>
      reply(answerTo(query, [], 2));
    first.script = failing;
    second.always("192.0.2.2");
    expect(decode(await client.ask(queryOf({ name: "a.b", id: 1 }), at)).answers?.length).toBe(1);
    second.script = ({ query, reply }) => reply(answerTo(query, [], 5));
    expect(decode(await client.ask(queryOf({ name: "a.b", id: 2 }), at)).rcode).toBe("REFUSED");
  });

  it("is answered with SERVFAIL when no server answers in three tries", async () => {
    client.send(queryOf({ name: "a.b" }), at);
    const ports = new Set<number>();
    for (let i = 0; i < 3; i++) {
      ports.add((await first.next()).from.port);
      expect(doors.timers.fire(TRY_MS)).toBe(1);
    }
    expect(ports.size).toBe(1);
    expect(decode(await client.next()).rcode).toBe("SERVFAIL");
    expect(await doors.recorded(1)).toMatchObject({ dns: { rcode: "SERVFAIL" }, reason: "the server did not answer" });
  });

  it("that is repeated is sent again to the server that is asked now", async () => {
    client.send(queryOf({ name: "a.b", id: 3 }), at);
    const once = await first.next();
    client.send(queryOf({ name: "a.b", id: 3 }), at);
    const again = await first.next();
    expect(again).toMatchObject({ query: once.query, from: once.from });
    again.reply(answerTo(again.query, ["192.0.2.1"]));
    expect(decode(await client.next()).id).toBe(3);
  });

  it("is answered with SERVFAIL when no server is known", async () => {
    await startWith();
    expect(decode(await client.ask(queryOf({ name: "a.b" }), at)).rcode).toBe("SERVFAIL");
    expect(doors.faults.splice(0)).toEqual([["dns resolver knows no name server", undefined]]);
  });

  it("is asked by TCP when it comes by TCP", async () => {
    first.always("192.0.2.1");
    const tcp = await TcpClient.start(at);
    tcp.send(queryOf({ name: "a.b", id: 1 }));
    expect(decode((await tcp.next())!)).toMatchObject({ id: 1, answers: [{ data: "192.0.2.1" }] });
    tcp.send(queryOf({ name: "a.b", id: 2 }));
    expect(decode((await tcp.next())!)).toMatchObject({ id: 2 });
    expect(first.connectionCount).toBe(2);
    expect(doors.records.map(({ flow }) => flow.protocol)).toEqual([6, 6]);
    tcp.stop();
  });

  it("by TCP goes to the next server when one refuses connections", async () => {
    const closed = { address: "127.0.0.2", port: await freePort() };
    await resolver.stop();
    resolver = await startDnsResolver(LISTEN, fixedServers([closed, second], LISTEN), doors);
    second.always("192.0.2.2");
    const tcp = await TcpClient.start({ address: LISTEN.address, port: resolver.port });
    tcp.send(queryOf({ name: "a.b", id: 1 }));
    expect(decode((await tcp.next())!)).toMatchObject({ id: 1, answers: [{ data: "192.0.2.2" }] });
    tcp.stop();
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen({ host: "127.0.0.2", port: 0 }, () => resolve()));
  const { port } = server.address() as { port: number };
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}

describe("the resolver", () => {
  it("says which address is taken", async () => {
    await expect(startDnsResolver(at, fixedServers([], at), doors)).rejects.toMatchObject({
      code: "EDGE_PORT_BUSY",
      message: expect.stringContaining(`Cannot listen for DNS on "${at.address}:${at.port}"`),
    });
  });

  it("stops while questions wait", async () => {
    client.send(queryOf({ name: "a.b" }), at);
    await first.next();
    await resolver.stop();
    expect(await doors.recorded(1)).toMatchObject({ reason: "the server did not answer" });
    resolver = await startDnsResolver(LISTEN, fixedServers([], LISTEN), doors);
  });
});
