/**
 * DNS rules with real packets: member a asks the name server on member b, straight and through its own resolver (`--dns-listen`),
 * over UDP and, where an answer is cut short, TCP. What is refused, what the server sees of its client, and what `observe` shows.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Running, until } from "../../scripts/lab/lab.ts";
import { Mesh } from "./mesh.ts";

const RESOLVER = "127.0.0.53";
/** Every name has one address; one that starts with "big" has 200, by TCP. TXT tells who asks. */
const SERVER = `
const packet = require(process.argv[2]);
const answer = (query, from, isTcp) => {
  const { id, questions } = packet.decode(query);
  const { name, type } = questions[0];
  const isBig = name.startsWith("big") && type === "A";
  const one = (data) => ({ type, name, ttl: 60, data });
  const answers = type === "TXT" ? [one(from)] : type !== "A" ? [] : !isBig ? [one("198.51.100.7")] :
    isTcp ? Array.from({ length: 200 }, (_, i) => one("198.51.100." + i)) : [];
  const flags = packet.RECURSION_AVAILABLE | (isBig && !isTcp ? packet.TRUNCATED_RESPONSE : 0);
  return packet.encode({ type: "response", id, flags, questions, answers });
};
const udp = require("node:dgram").createSocket("udp6");
udp.on("message", (query, { address, port }) => udp.send(answer(query, address, false), port, address));
const tcp = require("node:net").createServer((socket) => socket.on("error", () => {}).on("data", (chunk) => {
  const message = answer(chunk.subarray(2), socket.remoteAddress, true);
  socket.write(Buffer.concat([Buffer.from([message.length >> 8, message.length & 255]), message]));
}));
tcp.listen(53, "::", () => udp.bind(53, "::", () => console.log("ready")));
`;
/** argv: server, type, name. Prints the answers' count and the first, or the error's code. */
const CLIENT = `
const { Resolver } = require("node:dns");
const resolver = new Resolver({ timeout: 2000, tries: 1 });
const [server, type, name] = process.argv.slice(2);
resolver.setServers([server]);
resolver.resolve(name, type, (error, found) => console.log(error ? error.code : found.length + " " + found.flat()[0]));
`;

let mesh: Mesh;
let server: Running;
let client: string;

beforeAll(async () => {
  mesh = await Mesh.start(["a", "b"]);
  await mesh.join("b", "--label", "app=dns");
  const upstream = await mesh.address("b");
  await mesh.join("a", "--label", "app=client", "--dns-listen", `${RESOLVER}:53`, "--dns-upstream", upstream);
  const file = join(mesh.agent("b").node.dir, "dns.cjs");
  writeFileSync(file, SERVER);
  client = join(mesh.agent("a").node.dir, "ask.cjs");
  writeFileSync(client, CLIENT);
  const library = join(import.meta.dirname, "../../node_modules/dns-packet/index.js");
  server = mesh.lab.start("b", "dns", ["node", file, library]);
  await server.saw(/^ready$/m);
}, 120_000);

afterAll(async () => {
  await server?.stop();
  await mesh?.close();
});

const POLICY = `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: names, namespace: default }
spec:
  endpointSelector: { matchLabels: { app: client } }
  egress:
    - toEndpoints: [{ matchLabels: { app: dns } }]
      toPorts:
        - ports: [{ port: "53", protocol: ANY }]
          rules: { dns: [{ matchPattern: "*.example.com" }] }
    - toFQDNs: [{ matchName: www.example.com }]
`;

/** What a program on a is told by a name server. */
async function ask(at: string, name: string, type = "A"): Promise<string> {
  return (await mesh.lab.run("a", ["node", client, at, type, name])).stdout.trim();
}

describe("DNS rules", () => {
  it("let the names through that they say, from the member's own address, and refuse the others", async () => {
    expect(await ask(await mesh.address("b"), "www.evil.com")).toBe("1 198.51.100.7");
    await mesh.apply(POLICY);
    await until(
      "a rule for names",
      async () => await ask(await mesh.address("b"), "www.evil.com") === "EREFUSED",
      15_000,
    );
    for (const family of [4, 6] as const) {
      const at = await mesh.address("b", family);
      const own = await mesh.address("a", family);
      expect(await ask(at, "www.example.com")).toBe("1 198.51.100.7");
      expect(await ask(at, "WWW.Example.com", "TXT")).toMatch(new RegExp(`^1 (::ffff:)?${own}$`));
      expect(await ask(at, "example.com")).toBe("EREFUSED");
      expect(await ask(at, "a.b.example.com")).toBe("EREFUSED");
    }
  }, 60_000);

  it("hold over TCP, where an answer is cut short", async () => {
    for (const family of [4, 6] as const) {
      expect(await ask(await mesh.address("b", family), "big.example.com")).toBe("200 198.51.100.0");
    }
    expect(await ask(await mesh.address("b"), "big.evil.com")).toBe("EREFUSED");
  }, 60_000);

  it("are those of the local resolver too", async () => {
    expect(await ask(RESOLVER, "www.example.com")).toBe("1 198.51.100.7");
    expect(await ask(RESOLVER, "big.example.com")).toBe("200 198.51.100.0");
    expect(await ask(RESOLVER, "www.evil.com")).toBe("EREFUSED");
  }, 60_000);

  it("are shown by observe, with what they decided", async () => {
    const shown = await mesh.agent("a").ask(["observe", "--protocol", "dns", "--all"]);
    expect(shown).toMatch(/FORWARDED .*www\.example\.com/);
    expect(shown).toMatch(/DROPPED .*www\.evil\.com/);
  }, 30_000);

  it("that go away leave every name to be asked", async () => {
    await mesh.hub.ask(["delete", "CiliumNetworkPolicy", "names", "-n", "default"]);
    await until("no rule", async () => await ask(RESOLVER, "www.evil.com") === "1 198.51.100.7", 15_000);
    expect(await ask(await mesh.address("b"), "www.evil.com")).toBe("1 198.51.100.7");
  }, 60_000);
});
