/** DNS messages: against dns-packet, which reads and writes them in its own way, and against octets that are no message. */
import * as dnsPacket from "dns-packet";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  answerWithCode,
  faultOfQuery,
  isSameQuestion,
  limitUdpAnswer,
  RCODE_FORMAT_ERROR,
  RCODE_NOT_IMPLEMENTED,
  RCODE_REFUSED,
  readAnswers,
  readHead,
  withId,
} from "../../../src/fqdn/message.ts";
import { nameOfRcode, nameOfType } from "../../../src/fqdn/message_names.ts";
import { resolve } from "../../../src/fqdn/resolution.ts";

const EDNS: dnsPacket.Answer = {
  type: "OPT",
  name: ".",
  udpPayloadSize: 4096,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: dnsPacket.DNSSEC_OK,
  flag_do: true,
  options: [],
};

function query(name: string, type: dnsPacket.RecordType = "A", more: Partial<dnsPacket.Packet> = {}): Uint8Array {
  return new Uint8Array(dnsPacket.encode({
    type: "query",
    id: 4711,
    flags: dnsPacket.RECURSION_DESIRED,
    questions: [{ type, name, class: "IN" }],
    ...more,
  }));
}

function answer(name: string, answers: dnsPacket.Answer[], more: Partial<dnsPacket.Packet> = {}): Uint8Array {
  return query(name, "A", { type: "response", answers, ...more });
}

/** Header with counts, then octets. */
function raw(counts: readonly [number, number, number, number], ...octets: (number | string)[]): Uint8Array {
  const head = [0x12, 0x67, 1, 0, ...counts.flatMap((count) => [count >> 8, count & 255])];
  const rest = octets.flatMap((octet) => typeof octet === "number" ? [octet] : [...new TextEncoder().encode(octet)]);
  return Uint8Array.from([...head, ...rest]);
}

function resolutionOf(bytes: Uint8Array) {
  const head = readHead(bytes)!;
  return resolve(head.question!, readAnswers(bytes, head) ?? []);
}

describe("readHead", () => {
  it("reads id, flags and question of a query", () => {
    const head = readHead(query("WWW.Example.com", "AAAA"))!;
    expect(head).toMatchObject({ id: 4711, isResponse: false, opcode: 0, isTruncated: false, questionCount: 1 });
    expect(head.question).toEqual({ name: "WWW.Example.com.", type: 28, class: 1 });
  });

  it("reads flags and code of an answer", () => {
    const flags = dnsPacket.TRUNCATED_RESPONSE | 3;
    expect(readHead(answer("a.b", [], { flags }))).toMatchObject({ isResponse: true, isTruncated: true, rcode: 3 });
  });

  it("keeps what is inside a label apart from what is between labels", () => {
    const bytes = raw([1, 0, 0, 0], 3, "a.b", 3, 0, 255, "c", 0, 0, 1, 0, 1);
    expect(readHead(bytes)?.question?.name).toBe("a\\046b.\\000\\255c.");
  });

  it("reads the root", () => {
    expect(readHead(raw([1, 0, 0, 0], 0, 0, 2, 0, 1))?.question).toEqual({ name: ".", type: 2, class: 1 });
  });

  it("takes a name of 255 octets, not one of 256", () => {
    const name = (last: number) =>
      [63, "a".repeat(63), 63, "b".repeat(63), 63, "c".repeat(63), last, "d".repeat(last), 0] as (number | string)[];
    expect(readHead(raw([1, 0, 0, 0], ...name(61), 0, 1, 0, 1))?.question?.name.length).toBe(254);
    expect(readHead(raw([1, 0, 0, 0], ...name(62), 0, 1, 0, 1))?.question).toBeUndefined();
  });

  it.each([
    ["nothing", new Uint8Array(0), undefined],
    ["less than a header", new Uint8Array(11), undefined],
  ])("has no result for %s", (_, bytes, result) => {
    expect(readHead(bytes)).toBe(result);
  });

  it.each([
    ["a cut name", raw([1, 0, 0, 0], 3, "ab")],
    ["no end of the name", raw([1, 0, 0, 0], 3, "abc")],
    ["a cut type", raw([1, 0, 0, 0], 1, "a", 0, 0, 1, 0)],
    ["a pointer to itself", raw([1, 0, 0, 0], 0xc0, 12, 0, 1, 0, 1)],
    ["a pointer into the header", raw([1, 0, 0, 0], 0xc0, 2, 0, 1, 0, 1)],
    ["a pointer forward", raw([1, 0, 0, 0], 0xc0, 18, 0, 1, 0, 1, 0)],
    ["a label of reserved kind", raw([1, 0, 0, 0], 0x41, "a", 0, 0, 1, 0, 1)],
  ])("has no question when it is %s", (_, bytes) => {
    expect(readHead(bytes)).toMatchObject({ questionCount: 1 });
    expect(readHead(bytes)?.question).toBeUndefined();
  });
});

describe("faultOfQuery", () => {
  const faultOf = (bytes: Uint8Array) => faultOfQuery(bytes, readHead(bytes)!);

  it("finds none in a plain query and in one with EDNS", () => {
    expect(faultOf(query("a.b"))).toBeUndefined();
    expect(faultOf(query("a.b", "A", { additionals: [EDNS] }))).toBeUndefined();
  });

  it.each([
    ["an update", query("a.b", "A", { flags: 5 << 11 }), RCODE_NOT_IMPLEMENTED],
    ["no question", raw([0, 0, 0, 0]), RCODE_FORMAT_ERROR],
    ["two questions", raw([2, 0, 0, 0], 1, "a", 0, 0, 1, 0, 1, 1, "b", 0, 0, 1, 0, 1), RCODE_FORMAT_ERROR],
    ["a question that is cut", raw([1, 0, 0, 0], 1, "a", 0, 0), RCODE_FORMAT_ERROR],
    [
      "an answer",
      answer("a.b", [{ type: "A", name: "a.b", data: "192.0.2.1" }], { type: "query" }),
      RCODE_FORMAT_ERROR,
    ],
    ["octets behind its end", Uint8Array.from([...query("a.b"), 0]), RCODE_FORMAT_ERROR],
    ["a record that is missing", raw([1, 0, 0, 1], 1, "a", 0, 0, 1, 0, 1), RCODE_FORMAT_ERROR],
  ])("answers a query that has %s", (_, bytes, rcode) => {
    expect(faultOf(bytes)).toBe(rcode);
  });
});

describe("resolve", () => {
  it("gives the addresses of the name with their lowest TTL", () => {
    const bytes = answer("a.b", [
      { type: "A", name: "A.B", ttl: 60, data: "192.0.2.1" },
      { type: "AAAA", name: "a.b", ttl: 30, data: "2001:db8::1" },
    ]);
    expect(resolutionOf(bytes)).toEqual({ addresses: ["192.0.2.1", "2001:db8::1"], ttlSeconds: 30 });
  });

  it("follows aliases, whatever their order, and takes the lowest TTL of all", () => {
    const bytes = answer("a.b", [
      { type: "A", name: "e.f", ttl: 60, data: "192.0.2.1" },
      { type: "CNAME", name: "c.d", ttl: 7, data: "e.f" },
      { type: "CNAME", name: "a.b", ttl: 300, data: "C.d" },
    ]);
    expect(resolutionOf(bytes)).toEqual({ addresses: ["192.0.2.1"], ttlSeconds: 7 });
  });

  it("leaves out the addresses of names that nobody asked for", () => {
    const bytes = answer("a.b", [
      { type: "A", name: "bank.example", ttl: 60, data: "192.0.2.66" },
      { type: "A", name: "a.b", ttl: 60, data: "192.0.2.1" },
    ]);
    expect(resolutionOf(bytes)?.addresses).toEqual(["192.0.2.1"]);
    expect(resolutionOf(answer("a.b", [{ type: "A", name: "c.d", ttl: 1, data: "192.0.2.1" }]))).toBeUndefined();
  });

  it("ends on a circle of aliases", () => {
    const bytes = answer("a.b", [
      { type: "CNAME", name: "a.b", ttl: 60, data: "c.d" },
      { type: "CNAME", name: "c.d", ttl: 60, data: "a.b" },
    ]);
    expect(resolutionOf(bytes)).toBeUndefined();
  });

  it("reads only class IN, and skips types that name no address", () => {
    const bytes = answer("a.b", [
      { type: "TXT", name: "a.b", ttl: 1, data: "hello" },
      { type: "A", name: "a.b", ttl: 60, class: "CH", data: "192.0.2.66" },
      { type: "A", name: "a.b", ttl: 60, data: "192.0.2.1" },
    ]);
    expect(resolutionOf(bytes)).toEqual({ addresses: ["192.0.2.1"], ttlSeconds: 60 });
  });

  it("counts a TTL whose top bit is set as 0", () => {
    const bytes = answer("a.b", [{ type: "A", name: "a.b", ttl: 0xffffffff, data: "192.0.2.1" }]);
    expect(resolutionOf(bytes)?.ttlSeconds).toBe(0);
  });

  it("reads compressed names", () => {
    const bytes = raw(
      [1, 2, 0, 0],
      ...[1, "a", 1, "b", 0, 0, 1, 0, 1],
      ...[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, "c", 0xc0, 14],
      ...[0xc0, 33, 0, 1, 0, 1, 0, 0, 0, 8, 0, 4, 192, 0, 2, 1],
    );
    const head = readHead(bytes)!;
    expect(readAnswers(bytes, head)).toEqual([
      { name: "a.b.", ttlSeconds: 9, target: "c.b." },
      { name: "c.b.", ttlSeconds: 8, address: "192.0.2.1" },
    ]);
    expect(resolve(head.question!, readAnswers(bytes, head)!)).toEqual({ addresses: ["192.0.2.1"], ttlSeconds: 8 });
  });

  it.each([
    ["an A record of three octets", [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 3, 1, 2, 3]],
    ["an AAAA record of four octets", [0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]],
    ["data that runs past the message", [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3]],
    ["an alias that ends before its data", [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, 99, 0, 0]],
    ["a record that is not there", []],
    ["an alias to what stands in the header", [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 8]],
  ])("reads nothing from an answer that has %s", (_, octets) => {
    const bytes = raw([1, 1, 0, 0], 1, "a", 1, "b", 0, 0, 1, 0, 1, ...octets);
    expect(readAnswers(bytes, readHead(bytes)!)).toBeUndefined();
  });
});

describe("answerWithCode", () => {
  it("repeats id, question and wish for recursion, and says no", () => {
    const read = dnsPacket.decode(Buffer.from(answerWithCode(query("WWW.a.b", "AAAA"), RCODE_REFUSED)));
    expect(read).toMatchObject({ id: 4711, type: "response", rcode: "REFUSED", flag_rd: true, flag_ra: true });
    expect(read.questions).toMatchObject([{ name: "WWW.a.b", type: "AAAA" }]);
    expect(read.additionals).toEqual([]);
  });

  it("says why, to a client that speaks EDNS", () => {
    const bytes = answerWithCode(query("a.b", "A", { additionals: [EDNS] }), RCODE_REFUSED, "no rule");
    const read = dnsPacket.decode(Buffer.from(bytes));
    expect(read.additionals).toMatchObject([{ type: "OPT", udpPayloadSize: 1232 }]);
    const option = (read.additionals?.[0] as unknown as { options: { code: number; data: Uint8Array }[] }).options[0]!;
    expect(option.code).toBe(15);
    expect([...option.data]).toEqual([0, 15, ...new TextEncoder().encode("no rule")]);
  });

  it("answers a header without a question, and nothing at all with nothing", () => {
    expect([...answerWithCode(raw([7, 0, 0, 0]), 1)]).toEqual([0x12, 0x67, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
    expect(answerWithCode(new Uint8Array(5), 1).length).toBe(0);
  });
});

describe("the reader", () => {
  const label = fc.stringMatching(/^[a-zA-Z0-9_-]{1,12}$/);
  const name = fc.array(label, { minLength: 1, maxLength: 6 }).map((labels) => labels.join("."));
  const v4 = fc.ipV4();
  const record = fc.oneof(
    fc.record({ type: fc.constant("A" as const), name, ttl: fc.nat(86_400), data: v4 }),
    fc.record({ type: fc.constant("CNAME" as const), name, ttl: fc.nat(86_400), data: name }),
    fc.record({ type: fc.constant("TXT" as const), name, ttl: fc.nat(86_400), data: fc.constant("text") }),
  );

  it("reads what dns-packet writes", () => {
    fc.assert(fc.property(name, fc.array(record, { maxLength: 8 }), (asked, records) => {
      const bytes = answer(asked, records);
      const head = readHead(bytes)!;
      expect(head.question?.name).toBe(`${asked}.`);
      const expected = records.filter((one) => one.type !== "TXT").map((one) =>
        one.type === "A"
          ? { name: `${one.name}.`, ttlSeconds: one.ttl, address: one.data }
          : { name: `${one.name}.`, ttlSeconds: one.ttl, target: `${one.data}.` }
      );
      expect(readAnswers(bytes, head)).toEqual(expected);
    }));
  });

  it("gives a result for any octets, and for any damage to a message", () => {
    const sound = answer("www.example.com", [
      { type: "CNAME", name: "www.example.com", ttl: 60, data: "web.example.com" },
      { type: "A", name: "web.example.com", ttl: 60, data: "192.0.2.1" },
    ], { additionals: [EDNS] });
    const damage = fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 6 });
    const damaged = fc.tuple(damage, fc.nat(sound.length)).map(([changes, length]) => {
      const bytes = sound.slice(0, length);
      for (const [at, octet] of changes) if (at < length) bytes[at] = octet;
      return bytes;
    });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), damaged), (bytes) => {
        const head = readHead(bytes);
        if (head === undefined) return;
        const answers = readAnswers(bytes, head);
        if (answers !== undefined) resolve(head.question!, answers);
        faultOfQuery(bytes, head);
        expect(readHead(answerWithCode(bytes, 5, "x"))).toMatchObject({ id: head.id, isResponse: true, rcode: 5 });
      }),
      { numRuns: 5000 },
    );
  });

  it("is done soon with the largest message made of pointers", () => {
    const bytes = new Uint8Array(65_535);
    bytes.set(raw([1, 5000, 0, 0], 0, 0, 1, 0, 1));
    for (let at = 17; at + 1 < bytes.length; at += 2) bytes.set([0xc0 | ((at - 2) >> 8 & 0x3f), (at - 2) & 255], at);
    expect(readAnswers(bytes, readHead(bytes)!)).toBeUndefined();
  });
});

describe("limitUdpAnswer", () => {
  const option = { code: 10, data: Buffer.from("cookie!!") } as never;
  const asking = (udpPayloadSize: number) =>
    query("a.b", "A", { additionals: [{ ...EDNS, udpPayloadSize, options: [option] }] });

  it.each([1233, 4096, 65535])(
    "asks for no fragments where the client takes %i octets, and changes nothing else",
    (size) => {
      const before = asking(size);
      const kept = new Uint8Array(before);
      expect([...limitUdpAnswer(before)]).toEqual([...asking(1232)]);
      expect(before).toEqual(kept);
    },
  );

  it.each([
    ["takes as much", asking(1232)],
    ["takes less", asking(512)],
    ["has no EDNS", query("a.b")],
    ["is signed", Uint8Array.from([...edns(2), 0, 0, 250, 0, 255, 0, 0, 0, 0, 0, 0])],
    ["is signed with a key", Uint8Array.from([...edns(2), 0, 0, 24, 0, 255, 0, 0, 0, 0, 0, 0])],
    ["is cut", asking(4096).slice(0, -1)],
    ["is no message", new Uint8Array(5)],
  ])("leaves a query alone that %s", (_, bytes) => {
    expect(limitUdpAnswer(bytes)).toBe(bytes);
  });

  /** A query with an OPT record that says 4096, and a count of records. */
  function edns(records: number): Uint8Array {
    const bytes = query("a.b", "A", { additionals: [EDNS] });
    bytes[11] = records;
    return bytes;
  }

  it("takes any octets, and changes two of them at most", () => {
    const anyOctets = fc.oneof(
      fc.uint8Array({ maxLength: 60 }),
      fc.uint8Array({ maxLength: 30 }).map((tail) => Uint8Array.from([...edns(1 + tail.length % 3), ...tail])),
    );
    fc.assert(fc.property(anyOctets, (bytes) => {
      const after = limitUdpAnswer(bytes);
      expect(after.length).toBe(bytes.length);
      expect(after.filter((octet, i) => octet !== bytes[i]).length).toBeLessThanOrEqual(2);
    }));
  });
});

describe("small things", () => {
  it("withId changes the id of a copy", () => {
    const before = query("a.b");
    const after = withId(before, 0xabcd);
    expect([...after.subarray(0, 2)]).toEqual([0xab, 0xcd]);
    expect(after.subarray(2)).toEqual(before.subarray(2));
    expect(readHead(before)?.id).toBe(4711);
  });

  it("isSameQuestion ignores case and nothing else", () => {
    const question = { name: "a.b.", type: 1, class: 1 };
    expect(isSameQuestion(question, { ...question, name: "A.b." })).toBe(true);
    expect(isSameQuestion(question, { ...question, name: "a.c." })).toBe(false);
    expect(isSameQuestion(question, { ...question, type: 28 })).toBe(false);
    expect(isSameQuestion(question, { ...question, class: 3 })).toBe(false);
  });

  it("types and codes have names, or numbers", () => {
    expect([nameOfType(1), nameOfType(65), nameOfType(4242)]).toEqual(["A", "HTTPS", "TYPE4242"]);
    expect([nameOfRcode(0), nameOfRcode(3), nameOfRcode(15)]).toEqual(["NOERROR", "NXDOMAIN", "RCODE15"]);
  });
});
