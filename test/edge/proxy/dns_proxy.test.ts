/**
 * The DNS proxy on loopback, on every runtime. The datapath's part is played by addresses: the program asks from 127.0.0.1, its
 * port is the handle, and the server that the proxy reaches at that port is on 127.0.0.2.
 */
import { createSocket } from "node:dgram";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FLOW_WAIT_MS, LEARN_WAIT_MS } from "../../../edge/proxy/dns_doors.ts";
import { type DnsProxy, startDnsProxy } from "../../../edge/proxy/dns_proxy.ts";
import { DROP_PROXY_REFUSED, FORWARD } from "../../../src/verdict.ts";
import {
  answerTo,
  CLIENT,
  decode,
  dnsRules,
  Doors,
  flowOn,
  NameServer,
  OWN,
  queryOf,
  RULE,
  TcpClient,
  UdpClient,
} from "./dns_fakes.ts";

let doors: Doors;
let server: NameServer;
let proxy: DnsProxy;
let client: UdpClient;
let at: { address: string; port: number };
const clients: { stop(): unknown }[] = [];

beforeEach(async () => {
  doors = new Doors();
  doors.rules = dnsRules("*.example.com.");
  proxy = await startDnsProxy([OWN], doors);
  at = { address: OWN, port: proxy.port };
  server = await NameServer.start();
  client = await UdpClient.start(server.port);
});

afterEach(async () => {
  for (const one of clients.splice(0)) await one.stop();
  await Promise.all([client.stop(), server.stop(), proxy.stop()]);
  expect(doors.faults).toEqual([]);
});

async function tcpClient(): Promise<TcpClient> {
  doors.protocol = 6;
  const tcp = await TcpClient.start(at, server.port);
  clients.push(tcp);
  return tcp;
}

/** Of what was sent to the client so far, nothing is left: the next message is the answer to a question of now. */
async function nothingElseCame(): Promise<void> {
  expect(decode(await client.ask(queryOf({ name: "www.evil.com", id: 31337 }), at))).toMatchObject({ id: 31337 });
}

describe("a question by UDP", () => {
  it("is forwarded when a rule allows its name, and answered under its own id", async () => {
    server.always("192.0.2.1");
    const answer = decode(await client.ask(queryOf({ name: "WWW.example.com", id: 77 }), at));
    expect(answer).toMatchObject({ id: 77, type: "response", rcode: "NOERROR" });
    expect(answer.answers).toMatchObject([{ name: "WWW.example.com", data: "192.0.2.1" }]);
    expect(await doors.recorded(1)).toEqual({
      unixMs: 1_700_000_000_000,
      flow: flowOn(client.port, 17),
      kind: "dns",
      verdict: FORWARD,
      rule: RULE,
      dns: { name: "WWW.example.com.", type: "A", rcode: "NOERROR", addresses: ["192.0.2.1"] },
    });
  });

  it("reaches the server from our own address, with an id of ours, asks for no fragments, and is else as it was", async () => {
    const asking = (udpPayloadSize: number) =>
      queryOf({
        name: "a.example.com",
        type: "TXT",
        id: udpPayloadSize,
        additionals: [{
          type: "OPT",
          name: ".",
          udpPayloadSize,
          extendedRcode: 0,
          ednsVersion: 0,
          flags: 0x8000,
          flag_do: true,
          options: [],
        }],
      });
    for (const [size, expected] of [[1200, 1200], [4096, 1232]] as const) {
      client.send(asking(size), at);
      const { query: sent, from } = await server.next();
      expect(from.address).toBe(OWN);
      expect(from.port).not.toBe(proxy.port);
      expect(sent.subarray(2)).toEqual(asking(expected).subarray(2));
    }
  });

  it("gets ids that cannot be foretold", async () => {
    const ids = new Set<number>();
    for (let id = 1; id <= 20; id++) {
      client.send(queryOf({ name: "a.example.com", id }), at);
      ids.add(decode((await server.next()).query).id!);
    }
    expect(ids.size).toBeGreaterThan(15);
    expect(Math.max(...ids) - Math.min(...ids)).toBeGreaterThan(2000); // 20 of 65536: less than that once in 10^26
  });

  it("is refused when no rule allows its name, and never leaves", async () => {
    const answer = decode(await client.ask(queryOf({ name: "www.evil.com" }), at));
    expect(answer).toMatchObject({ id: 4711, rcode: "REFUSED", questions: [{ name: "www.evil.com", type: "A" }] });
    expect(await doors.recorded(1)).toMatchObject({
      verdict: DROP_PROXY_REFUSED,
      dns: { name: "www.evil.com.", rcode: "REFUSED" },
      reason: "no DNS rule allows the name",
    });
    expect(doors.records[0]!.rule).toBeUndefined();
    expect(server.exchanges).toEqual([]);
  });

  it("is refused with NXDOMAIN where the mesh says so", async () => {
    doors.reject = "nameError";
    expect(decode(await client.ask(queryOf({ name: "www.evil.com" }), at)).rcode).toBe("NXDOMAIN");
  });

  it("is refused when no rule sends the flow here any more, or when the rules are of another kind", async () => {
    doors.rules = [];
    expect(decode(await client.ask(queryOf({ name: "a.example.com" }), at)).rcode).toBe("REFUSED");
    expect((await doors.recorded(1)).reason).toBe("no rule allows the flow any more");
    doors.rules = [{ rule: RULE, l7: { kind: "http", rules: [{ headers: [] }] } }];
    expect(decode(await client.ask(queryOf({ name: "a.example.com" }), at)).rcode).toBe("REFUSED");
  });

  it("is judged by each of several rules, and the one that matches is told", async () => {
    const second = { ...RULE, index: 1 };
    doors.rules = [...dnsRules("a."), {
      rule: second,
      l7: { kind: "dns", rules: [{ pattern: "b." }, { pattern: "*" }] },
    }];
    server.always("192.0.2.1");
    await client.ask(queryOf({ name: "c.d" }), at);
    expect((await doors.recorded(1)).rule).toBe(second);
  });

  it("is not let through by a dot inside a label", async () => {
    const query = queryOf({ name: "aXexample.com" }); // one label "aXexample"
    query[12 + 2] = 0x2e; // now "a.example", still one label
    expect(decode(await client.ask(query, at)).rcode).toBe("REFUSED");
    expect((await doors.recorded(1)).dns?.name).toBe("a\\046example.com.");
  });

  it("that is malformed is answered with FORMERR, an update with NOTIMP", async () => {
    expect(decode(await client.ask(Uint8Array.from([...queryOf({ name: "a.example.com" }), 0]), at)).rcode).toBe(
      "FORMERR",
    );
    const update = queryOf({ name: "a.example.com" });
    update[2] = 5 << 3;
    expect(decode(await client.ask(update, at)).rcode).toBe("NOTIMP");
    expect(server.exchanges).toEqual([]);
  });

  it("is not answered when it comes from elsewhere, is an answer, or has no flow", async () => {
    const stranger = await UdpClient.start(0, "127.0.0.9");
    clients.push(stranger);
    stranger.send(queryOf({ name: "www.evil.com" }), at);
    client.send(new Uint8Array(3), at);
    client.send(answerTo(queryOf({ name: "a.example.com" }), ["192.0.2.1"]), at);
    await nothingElseCame();
    expect(doors.records.length).toBe(1);
    for (const flow of [undefined, flowOn(client.port, 6)]) {
      doors.flow = () => flow;
      client.send(queryOf({ name: "www.evil.com" }), at);
      await arrived();
    }
    await nothingElseCame();
    expect(doors.records.length).toBe(2);
  });

  /** Lets what was sent so far arrive, whatever becomes of it, and gives flows back. */
  async function arrived(): Promise<void> {
    const probe = await UdpClient.start(0, CLIENT);
    clients.push(probe);
    const { flow } = doors;
    doors.flow = (handle) => handle === probe.port ? flowOn(handle, 17) : flow(handle);
    await probe.ask(Uint8Array.from([...queryOf({ name: "a" }), 0]), at);
    doors.flow = (handle) => flowOn(handle, 17);
  }

  it("that is repeated is sent again, and answered once", async () => {
    client.send(queryOf({ name: "a.example.com", id: 5 }), at);
    const first = await server.next();
    client.send(queryOf({ name: "a.example.com", id: 5 }), at);
    const second = await server.next();
    expect(second.query).toEqual(first.query);
    expect(second.from).toEqual(first.from);
    second.reply(answerTo(second.query, ["192.0.2.1"]));
    first.reply(answerTo(first.query, ["192.0.2.66"]));
    expect(decode(await client.next()).answers).toMatchObject([{ data: "192.0.2.1" }]);
    await nothingElseCame();
  });

  it("and another one of the same flow leave from one port, and are answered in any order", async () => {
    client.send(queryOf({ name: "a.example.com", id: 5 }), at);
    client.send(queryOf({ name: "a.example.com", id: 6, type: "AAAA" }), at);
    const [first, second] = [await server.next(), await server.next()];
    expect(second.from).toEqual(first.from);
    second.reply(answerTo(second.query, []));
    expect(decode(await client.next()).id).toBe(6);
    first.reply(answerTo(first.query, ["192.0.2.1"]));
    expect(decode(await client.next()).id).toBe(5);
  });

  it("gets no answer when none comes, and its record says so", async () => {
    client.send(queryOf({ name: "a.example.com" }), at);
    await server.next();
    expect(doors.timers.fire(FLOW_WAIT_MS)).toBe(1);
    expect(await doors.recorded(1)).toMatchObject({
      verdict: FORWARD,
      dns: { rcode: "" },
      reason: "the server did not answer",
    });
    await nothingElseCame();
  });

  it("is not answered to a flow that took its place", async () => {
    client.send(queryOf({ name: "a.example.com" }), at);
    const { query, reply } = await server.next();
    doors.flow = (handle) => ({ ...flowOn(handle, 17), from: { address: "10.0.0.1", port: 9 } });
    reply(answerTo(query, ["192.0.2.1"]));
    await doors.recorded(1);
    await nothingElseCame();
  });

  it("of too many that wait is answered with SERVFAIL at once", async () => {
    for (let id = 1; id <= 256; id++) client.send(queryOf({ name: "a.example.com", id }), at);
    for (let id = 1; id <= 256; id++) await server.next();
    const answer = decode(await client.ask(queryOf({ name: "a.example.com", id: 999 }), at));
    expect(answer).toMatchObject({ id: 999, rcode: "SERVFAIL" });
    expect(await doors.recorded(1)).toMatchObject({ reason: "too many questions at once" });
  });
});

describe("an answer", () => {
  it.each([
    ["has another id", (right: Uint8Array) => {
      right[0]! ^= 1;
      return right;
    }],
    ["has another question", (right: Uint8Array) => {
      right[14]! ^= 1;
      return right;
    }],
    ["is a question", (right: Uint8Array) => {
      right[2]! &= 0x7f;
      return right;
    }],
    ["has no question", (right: Uint8Array) => {
      right[5] = 0;
      return right;
    }],
    ["is no message", () => new Uint8Array(5)],
  ])("that %s is ignored, and the right one still counts", async (_, forge) => {
    client.send(queryOf({ name: "ab.example.com" }), at);
    const { query, reply } = await server.next();
    reply(forge(answerTo(query, ["192.0.2.66"])));
    reply(answerTo(query, ["192.0.2.1"]));
    expect(decode(await client.next()).answers).toMatchObject([{ data: "192.0.2.1" }]);
    expect(doors.learned).toMatchObject([{ addresses: ["192.0.2.1"] }]);
  });

  it("from another address or port is ignored", async () => {
    client.send(queryOf({ name: "a.example.com" }), at);
    const { query, from, reply } = await server.next();
    const forged = answerTo(query, ["192.0.2.66"]);
    for (const [address, port] of [["127.0.0.2", 0], ["127.0.0.3", server.port]] as const) {
      const forger = createSocket("udp4");
      await new Promise<void>((resolve) => forger.bind({ address, port, exclusive: true }, () => resolve()));
      await new Promise<void>((resolve) => forger.send(forged, from.port, from.address, () => resolve()));
      await new Promise<void>((resolve) => forger.close(() => resolve()));
    }
    reply(answerTo(query, ["192.0.2.1"]));
    expect(decode(await client.next()).answers).toMatchObject([{ data: "192.0.2.1" }]);
  });

  it("passes as it is: truncated, with codes and records of any kind", async () => {
    client.send(queryOf({ name: "a.example.com", id: 9 }), at);
    const { query, reply } = await server.next();
    const answer = answerTo(query, [
      { type: "MX", name: "a.example.com", ttl: 5, data: { preference: 1, exchange: "b.c" } },
    ], 0x0200 | 0x0400 | 3);
    reply(answer);
    const passed = await client.next();
    expect(passed.subarray(2)).toEqual(answer.subarray(2));
    expect(decode(passed).id).toBe(9);
    expect((await doors.recorded(1)).dns?.rcode).toBe("NXDOMAIN");
  });

  it("that is cut in the middle passes when it says so, else it is a failure", async () => {
    client.send(queryOf({ name: "a.example.com", id: 9 }), at);
    const first = await server.next();
    first.reply(answerTo(first.query, ["192.0.2.1"], 0x0200).subarray(0, -2));
    expect(decodeHead(await client.next())).toMatchObject({ rcode: 0 });
    client.send(queryOf({ name: "a.example.com", id: 10 }), at);
    const second = await server.next();
    second.reply(answerTo(second.query, ["192.0.2.1"]).subarray(0, -2));
    expect(decodeHead(await client.next())).toMatchObject({ id: 10, rcode: 2 });
    expect(doors.learned).toEqual([]);
  });

  function decodeHead(bytes: Uint8Array): { id: number; rcode: number } {
    return { id: (bytes[0]! << 8) | bytes[1]!, rcode: bytes[3]! & 15 };
  }

  it("teaches the addresses of the name that was asked for, behind aliases too", async () => {
    server.always(
      { type: "CNAME", name: "www.example.com", ttl: 30, data: "cdn.net" },
      { type: "A", name: "cdn.net", ttl: 60, data: "192.0.2.1" },
      { type: "AAAA", name: "cdn.net", ttl: 90, data: "2001:db8::1" },
      { type: "A", name: "bank.example.com", ttl: 60, data: "192.0.2.66" },
    );
    await client.ask(queryOf({ name: "WWW.Example.com" }), at);
    expect(doors.learned).toEqual([
      { name: "www.example.com.", addresses: ["192.0.2.1", "2001:db8::1"], ttlSeconds: 30 },
    ]);
  });

  it("teaches nothing of a name that no policy mentions, nor of a failure", async () => {
    server.always("192.0.2.1");
    doors.mentioned = ["b.example.com.", "*.org."];
    await client.ask(queryOf({ name: "a.example.com" }), at);
    doors.mentioned = ["*"];
    server.script = ({ query, reply }) => reply(answerTo(query, ["192.0.2.1"], 3));
    await client.ask(queryOf({ name: "a.example.com" }), at);
    expect(doors.learned).toEqual([]);
  });

  it("waits until what it teaches is in force", async () => {
    let done = () => {};
    doors.whenLearned = () => new Promise((resolve) => (done = resolve));
    server.always("192.0.2.1");
    client.send(queryOf({ name: "a.example.com" }), at);
    await doors.hasLearned();
    await client.ask(queryOf({ name: "www.evil.com", id: 2 }), at);
    expect(client.received).toEqual([]);
    done();
    expect(decode(await client.next()).answers).toMatchObject([{ data: "192.0.2.1" }]);
  });

  it("waits no longer than 100 ms, and not at all for a door that fails", async () => {
    doors.whenLearned = () => new Promise(() => {});
    server.always("192.0.2.1");
    client.send(queryOf({ name: "a.example.com" }), at);
    await doors.hasLearned();
    expect(LEARN_WAIT_MS).toBe(100);
    expect(doors.timers.fire(LEARN_WAIT_MS)).toBe(1);
    expect(decode(await client.next()).rcode).toBe("NOERROR");
    doors.whenLearned = () => Promise.reject(new Error("no"));
    expect(decode(await client.ask(queryOf({ name: "a.example.com" }), at)).rcode).toBe("NOERROR");
    expect(doors.faults.splice(0)).toEqual([["dns answer not learned", { name: "a.example.com.", reason: "no" }]]);
  });
});

describe("a connection by TCP", () => {
  it("is forwarded on one connection from our own address, question by question", async () => {
    const tcp = await tcpClient();
    tcp.send(queryOf({ name: "a.example.com", id: 1 }));
    tcp.send(queryOf({ name: "www.evil.com", id: 2 }));
    tcp.send(queryOf({ name: "b.example.com", id: 3 }));
    const [first, third] = [await server.next(), await server.next()];
    expect(decode((await tcp.next())!)).toMatchObject({ id: 2, rcode: "REFUSED" });
    expect(first.from).toMatchObject({ address: OWN });
    expect(third.from).toEqual(first.from);
    third.reply(answerTo(third.query, ["192.0.2.3"]));
    expect(decode((await tcp.next())!)).toMatchObject({ id: 3, answers: [{ data: "192.0.2.3" }] });
    first.reply(answerTo(first.query, ["192.0.2.1"]));
    expect(decode((await tcp.next())!)).toMatchObject({ id: 1, answers: [{ data: "192.0.2.1" }] });
    expect(server.connectionCount).toBe(1);
    expect(doors.learned.map(({ name }) => name)).toEqual(["b.example.com.", "a.example.com."]);
    expect(doors.records.map(({ flow }) => flow.protocol)).toEqual([6, 6, 6]);
  });

  it("is not opened to the server while no question is allowed", async () => {
    const tcp = await tcpClient();
    tcp.send(queryOf({ name: "www.evil.com" }));
    await tcp.next();
    expect(server.connectionCount).toBe(0);
  });

  it("takes messages in pieces, and an answer of 60 000 octets", async () => {
    const tcp = await tcpClient();
    const query = queryOf({ name: "a.example.com" });
    for (const octet of [0, query.length, ...query]) tcp.write(Uint8Array.from([octet]));
    const { query: sent, reply } = await server.next();
    reply(answerTo(sent, Array.from({ length: 2000 }, (_, i) => `10.0.${i >> 8}.${i & 255}`)));
    expect(decode((await tcp.next())!).answers?.length).toBe(2000);
  });

  it("ends when the server ends it", async () => {
    const tcp = await tcpClient();
    tcp.send(queryOf({ name: "a.example.com" }));
    await server.next();
    for (const socket of server.connections) socket.destroy();
    await tcp.ended();
  });

  it("that the client ends its side of gets its answers first", async () => {
    const tcp = await tcpClient();
    tcp.send(queryOf({ name: "a.example.com" }));
    tcp.endWriting();
    const { query, reply } = await server.next();
    reply(answerTo(query, ["192.0.2.1"]));
    expect(decode((await tcp.next())!).answers?.length).toBe(1);
    await tcp.ended();
  });

  it("ends when it is idle, when a message is too long, and when it is of no flow", async () => {
    const idle = await tcpClient();
    idle.send(queryOf({ name: "www.evil.com" }));
    await idle.next();
    doors.timers.fire(10_000);
    await idle.ended();
    const greedy = await TcpClient.start(at, 0);
    greedy.write(Uint8Array.from([0xff, 0xff, 1]));
    await greedy.ended();
    doors.flow = () => undefined;
    const none = await TcpClient.start(at, 0);
    await none.ended();
    const stranger = await TcpClient.start(at, 0, "127.0.0.9");
    doors.flow = (handle) => flowOn(handle, 6);
    await stranger.ended();
  });
});

describe("the proxy", () => {
  it("listens on the same port of every address, for UDP and TCP", async () => {
    const other = await startDnsProxy(["127.0.0.5", "::1"], doors);
    try {
      for (const address of ["127.0.0.5"]) {
        const answer = await client.ask(queryOf({ name: "www.evil.com" }), { address, port: other.port });
        expect(decode(answer).rcode).toBe("REFUSED");
      }
      doors.flow = () => undefined;
      const tcp = await TcpClient.start({ address: "::1", port: other.port }, 0, "::1");
      await tcp.ended();
    } finally {
      await other.stop();
    }
  });

  it("does not start on an address that is not there, and says which error it was", async () => {
    await expect(startDnsProxy(["203.0.113.9"], doors)).rejects.toMatchObject({ code: "EADDRNOTAVAIL" });
  });

  it("stops while questions wait", async () => {
    const other = await startDnsProxy(["127.0.0.6"], doors);
    client.send(queryOf({ name: "a.example.com" }), { address: "127.0.0.6", port: other.port });
    await server.next();
    await other.stop();
    expect(await doors.recorded(1)).toMatchObject({ reason: "the server did not answer" });
  });
});
