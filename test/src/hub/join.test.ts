import { createHash, createHmac } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { toHex } from "../../../src/bytes/text.ts";
import {
  deviceMessageOf,
  isJoinProof,
  type JoinRequest,
  proveJoin,
  readJoinRequest,
  recordMessageOf,
  transcriptOf,
} from "../../../src/hub/join.ts";
import { verifierOf } from "../../../src/hub/token.ts";

const fill = (count: number, value: number) => new Uint8Array(count).fill(value);
const request: JoinRequest = {
  challenge: fill(32, 1),
  tokenId: fill(8, 2),
  deviceKey: fill(32, 3),
  publicKey: fill(32, 4),
  caPin: fill(32, 5),
  name: "pi-7",
  namespace: "edge",
  labels: { b: "2", a: "1" },
  namedPorts: [{ name: "http", port: 8080, protocol: "TCP" }],
  localAddress: "192.168.1.20",
  listenPort: 51871,
  proof: fill(32, 6),
  signature: fill(64, 7),
};

describe("transcriptOf", () => {
  it("is known for a known request", () => {
    // SHA-256 of the same octets, built by hand in the order of the doc comment
    const text = (value: string) => new TextEncoder().encode(value);
    const fields = [
      text("edgemesh join transcript v1"),
      fill(32, 1),
      fill(8, 2),
      fill(32, 3),
      fill(32, 4),
      fill(32, 5),
      ...["pi-7", "edge", "192.168.1.20", "51871", "2", "a", "1", "b", "2", "1", "http", "8080", "TCP"].map(text),
    ];
    const hash = createHash("sha256");
    for (const field of fields) hash.update(Uint8Array.of(0, 0, 0, field.length)).update(field);
    expect(createHash("sha256").update(transcriptOf(request)).digest("hex")).toBe(hash.digest("hex"));
  });

  it("does not depend on the order of labels", () => {
    expect(transcriptOf({ ...request, labels: { a: "1", b: "2" } })).toEqual(transcriptOf(request));
  });

  it("differs whenever anything that is asked for differs", () => {
    const others: Partial<JoinRequest>[] = [
      { challenge: fill(32, 9) },
      { tokenId: fill(8, 9) },
      { deviceKey: fill(32, 9) },
      { publicKey: fill(32, 9) },
      { caPin: fill(32, 9) },
      { name: "pi-8" },
      { name: "pi-7edge", namespace: "" },
      { namespace: "prod" },
      { labels: {} },
      { labels: { a: "1", b: "3" } },
      { labels: { a: "1b", "": "2" } },
      { namedPorts: [] },
      { namedPorts: [{ name: "http", port: 8080, protocol: "UDP" }] },
      { localAddress: "" },
      { listenPort: 51872 },
    ];
    const all = new Set(
      [request, ...others.map((change) => ({ ...request, ...change }))].map((r) => toHex(transcriptOf(r))),
    );
    expect(all.size).toBe(others.length + 1);
  });
});

describe("the proof", () => {
  const secret = fill(16, 0xaa);

  it("is HMAC-SHA256 under the verifier, which is what the hub keeps", () => {
    const transcript = transcriptOf(request);
    const verifier = createHmac("sha256", secret).update("edgemesh join v1").digest();
    const expected = createHmac("sha256", verifier).update(transcript).digest();
    expect(toHex(proveJoin(secret, transcript))).toBe(expected.toString("hex"));
  });

  it("holds for its secret and its transcript, and for nothing else", () => {
    const transcript = transcriptOf(request);
    const proof = proveJoin(secret, transcript);
    expect(isJoinProof(verifierOf(secret), transcript, proof)).toBe(true);
    expect(isJoinProof(verifierOf(fill(16, 0xab)), transcript, proof)).toBe(false);
    expect(isJoinProof(verifierOf(secret), transcriptOf({ ...request, name: "x" }), proof)).toBe(false);
    expect(isJoinProof(verifierOf(secret), transcript, proof.with(31, proof[31]! ^ 1))).toBe(false);
    expect(isJoinProof(verifierOf(secret), transcript, new Uint8Array(0))).toBe(false);
  });

  it("what device and hub sign cannot stand for each other", () => {
    expect(deviceMessageOf(fill(3, 1))).not.toEqual(recordMessageOf(fill(3, 1)));
    expect(new TextDecoder().decode(recordMessageOf(fill(1, 0x41)))).toBe("edgemesh member record v1\0A");
  });
});

describe("readJoinRequest", () => {
  it("takes a request, and copies its octets", () => {
    const read = readJoinRequest({ ...request, deviceKey: Buffer.from(request.deviceKey) })!;
    expect(read).toEqual(request);
    expect(Object.getPrototypeOf(read.deviceKey)).toBe(Uint8Array.prototype);
  });

  it("takes nothing that is not exactly one, and never throws", () => {
    for (const field of Object.keys(request)) {
      expect(readJoinRequest({ ...request, [field]: undefined }), field).toBeUndefined();
      fc.assert(fc.property(fc.anything(), (value) => {
        const read = readJoinRequest({ ...request, [field]: value });
        if (read !== undefined) transcriptOf(read);
      }));
    }
    fc.assert(fc.property(fc.anything(), (value) => void readJoinRequest(value)));
    expect(readJoinRequest({ ...request, proof: fill(31, 0) })).toBeUndefined();
    expect(readJoinRequest({ ...request, listenPort: 65536 })).toBeUndefined();
    expect(readJoinRequest({ ...request, name: "x".repeat(256) })).toBeUndefined();
  });
});
