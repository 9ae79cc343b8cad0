/**
 * DNS rules with real packets: member a asks the name server on member b, straight and through its own resolver (`--dns-listen`),
 * over UDP and, where an answer is cut short, TCP. What is refused, what the server sees of its client, and what `observe` shows.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Running, until } from "../../scripts/lab/lab.ts";
import { DnsPrograms } from "./dns_programs.ts";
import { Mesh } from "./mesh.ts";

const RESOLVER = "127.0.0.53";
let mesh: Mesh;
let server: Running;
let programs: DnsPrograms;

beforeAll(async () => {
  mesh = await Mesh.start(["a", "b"]);
  await mesh.join("b", "--label", "app=dns");
  const upstream = await mesh.address("b");
  await mesh.join("a", "--label", "app=client", "--dns-listen", `${RESOLVER}:53`, "--dns-upstream", upstream);
  programs = new DnsPrograms(mesh.lab);
  server = await programs.serve("b");
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

const ask = (at: string, name: string, type = "A") => programs.ask("a", at, name, type);

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
