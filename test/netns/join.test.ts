/**
 * The first hour of a mesh: two members join a hub, reach each other over IPv4 and IPv6, a policy closes one port, it is changed
 * while a connection is open, and the health pages tell it. One hub, two members, a router between them (`scripts/lab/lab.ts`).
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Running, until } from "../../scripts/lab/lab.ts";
import { allowOnly, Mesh, TRAFFIC } from "./mesh.ts";

let mesh: Mesh;
let toA: string;
let toB: string;

beforeAll(async () => {
  mesh = await Mesh.start(["a", "b"]);
  mesh.startJoin("a", await mesh.token("--label", "app=client"));
  mesh.startJoin("b", await mesh.token("--label", "app=web"));
  await Promise.all([mesh.isUp("a"), mesh.isUp("b")]);
  toA = await mesh.address("a");
  toB = await mesh.address("b");
});
afterAll(() => mesh?.close());

describe("two members", () => {
  it("have different addresses, identities and keys", async () => {
    const [a, b, hub] = await Promise.all([mesh.self("a"), mesh.self("b"), mesh.self("hub")]);
    expect(new Set([a, b, hub].flatMap(({ addresses }) => addresses)).size).toBe(6);
    expect(new Set([a, b].map(({ identity }) => identity)).size).toBe(2);
    expect(new Set([a, b, hub].map(({ publicKey }) => publicKey)).size).toBe(3);
  });

  it("reach each other and the hub, over IPv4 and IPv6", async () => {
    for (const [from, to] of [["a", "b"], ["b", "a"], ["a", "hub"], ["hub", "b"]] as const) {
      for (const family of [4, 6] as const) {
        const address = await mesh.address(to, family);
        await until(`${from} pings ${to} over IPv${family}`, () => mesh.pings(from, address));
      }
    }
  });

  it("answer edgemesh ping by name and by address", async () => {
    for (const target of ["b", toB, await mesh.address("b", 6)]) {
      const done = await mesh.agent("a").cli(["ping", target]);
      expect(done.code, done.stderr).toBe(0);
      expect(done.stdout).toMatch(/\d+(\.\d+)? ms/);
    }
    expect((await mesh.agent("a").cli(["ping", "nobody-of-that-name"])).code).not.toBe(0);
  });

  it("list each other as peers with a session", async () => {
    const { peers } = await mesh.agent("a").json(["peers"]);
    const b = peers.find((peer: { name: string }) => peer.name === "b");
    expect(b).toMatchObject({ state: "active", publicKey: (await mesh.self("b")).publicKey });
    expect(b.rxBytes).toBeGreaterThan(0);
    expect(await mesh.agent("a").ask(["peers"])).toContain("b");
  });

  it("carry packets of every size up to the MTU, larger ones in pieces of TCP", async () => {
    const { device } = await mesh.agent("a").json(["status"]);
    for (const size of [0, 1, 100, 1000, device.mtuBytes - 28]) {
      expect(
        (await mesh.lab.run("a", ["ping", "-c1", "-W2", "-M", "do", "-s", String(size), toB])).code,
        `${size} octets`,
      ).toBe(0);
    }
    await mesh.serve("b", 9000);
    for (const address of [toB, await mesh.address("b", 6)]) {
      const sent = await mesh.lab.run("a", [...TRAFFIC, "send", address, "9000", "8"]);
      expect(sent.stdout.trim()).toBe(`same ${8 << 20}`);
    }
  });

  it("carry UDP both ways over both families", async () => {
    const server = mesh.lab.start("b", "udp-serve", [...TRAFFIC, "udp-serve", "5300"]);
    await server.saw(/^ready$/m);
    for (const address of [toB, await mesh.address("b", 6)]) {
      for (const octets of [1, 512, 1200]) {
        expect((await mesh.lab.run("a", [...TRAFFIC, "udp", address, "5300", String(octets)])).stdout.trim()).toBe(
          "echo",
        );
      }
    }
  });

  it("put nothing on the wire that can be read", async () => {
    const capture = mesh.lab.start("a", "sniff", [
      "tcpdump",
      "-Z",
      "root",
      "-n",
      "-l",
      "-A",
      "-i",
      "eth0",
      "udp port 51871",
    ]);
    await capture.saw(/listening on/);
    await mesh.serve("b", 9001);
    expect(await mesh.get("a", toB, 9001)).toContain("hello from b");
    await until("the capture has the packets", () => capture.log().split("\n").length > 10);
    await capture.stop();
    expect(capture.log()).not.toContain("hello from b");
    expect(capture.log()).not.toContain("GET /");
  });
});

describe("a policy", () => {
  let held: Running;
  let drops: Running;

  beforeAll(async () => {
    await mesh.serve("b", 8080);
    await mesh.serve("b", 8081);
    expect(await mesh.get("a", toB, 8080)).toContain("hello from b");
    expect(await mesh.get("a", toB, 8081)).toContain("hello from b");
    drops = mesh.agent("b").start(["monitor", "--drops"]);
    held = mesh.lab.start("a", "held-connection", [...TRAFFIC, "hold", toB, "8080"]);
    await held.saw(/^echo 3$/m);
    await mesh.apply(allowOnly("web", "client", 8080));
    await until("8081 is closed", async () => (await mesh.get("a", toB, 8081)) === undefined);
  });

  it("leaves the allowed port open and closes the other, for both families", async () => {
    for (const address of [toB, await mesh.address("b", 6)]) {
      expect(await mesh.get("a", address, 8080)).toContain("hello from b");
      expect(await mesh.get("a", address, 8081)).toBeUndefined();
    }
  });

  it("says why: the monitor, the metrics and the drop list name the reason", async () => {
    await drops.saw(/POLICY_DENIED.*8081|8081.*POLICY_DENIED/);
    expect(await mesh.metric("b", 'edgemesh_dropped_packets_total{direction="ingress",reason="POLICY_DENIED"}'))
      .toBeGreaterThan(0);
  });

  it("lets answers to what the member itself started come in", async () => {
    await mesh.serve("a", 8082);
    expect(await mesh.get("b", toA, 8082)).toContain("hello from a");
  });

  it("does not cut a connection that stays allowed, through every change", async () => {
    const count = (): number => Number(/echo (\d+)\n*$/.exec(held.log())?.[1] ?? 0);
    for (const port of [8081, 8080, 8081]) {
      // one rule more and one less, with 8080 always among them
      await mesh.apply(`${allowOnly("web", "client", 8080)}      - { port: ${port}, protocol: TCP }\n`.replace(
        "      ports: [{ port: 8080, protocol: TCP }]\n",
        "      ports:\n      - { port: 8080, protocol: TCP }\n",
      ));
      await until(
        `8081 is ${port === 8081 ? "open" : "closed"}`,
        async () => (await mesh.get("a", toB, 8081) !== undefined) === (port === 8081),
      );
      const before = count();
      await until("the connection goes on", () => count() > before + 3, 5_000, () => held.log());
    }
    expect(held.exitCode).toBeUndefined();
  });

  it("is refused by name when it asks for what cannot be enforced", async () => {
    const done = await mesh.hub.cli(["apply", "-f", "-"], {
      input: `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: { name: l7, namespace: default }
spec:
  endpointSelector: { matchLabels: { app: web } }
  ingress:
    - toPorts: [{ ports: [{ port: "8080", protocol: TCP }], rules: { kafka: [{ topic: t }] } }]
`,
    });
    const text = done.code === 0 ? await mesh.agent("b").ask(["status"]) : done.stderr;
    expect(text).toMatch(/kafka/);
    await mesh.hub.cli(["delete", "CiliumNetworkPolicy", "l7", "--namespace", "default"]);
  });

  it("goes away when it is deleted", async () => {
    await mesh.hub.ask(["delete", "NetworkPolicy", "only", "--namespace", "default"]);
    await until("8081 is open", async () => (await mesh.get("a", toB, 8081)) !== undefined);
  });
});

describe("the local interface", () => {
  it("answers health in Kubernetes' manner", async () => {
    const agent = mesh.agent("a");
    for (const path of ["/livez", "/readyz", "/healthz"]) {
      expect(await agent.http(path)).toEqual({ status: 200, body: "ok" });
    }
    const verbose = await agent.http("/readyz?verbose");
    expect(verbose.status).toBe(200);
    expect(verbose.body).toMatch(/\[\+\]datapath ok\n[\s\S]*readyz check passed/);
    expect((await agent.http("/metrics")).body).toMatch(/^edgemesh_up 1$/m);
    expect(JSON.parse((await agent.http("/v1/status")).body)).toMatchObject({ kind: "Status", member: { name: "a" } });
  });

  it("refuses a foreign Host and a foreign Origin, and changes nothing through loopback", async () => {
    const agent = mesh.agent("a");
    expect((await agent.http("/v1/status", { headers: ["Host: evil.example"] })).status).toBe(403);
    expect((await agent.http("/v1/status", { headers: ["Origin: http://evil.example"] })).status).toBe(403);
    const leave = await mesh.lab.run("a", [
      "curl",
      "-s",
      "-o",
      "/dev/null",
      "-w",
      "%{http_code}",
      "-X",
      "POST",
      "http://127.0.0.1:9780/v1/leave",
    ]);
    expect(leave.stdout).toBe("403");
    expect((await agent.http("/livez")).status).toBe(200);
  });

  it("is not reachable from other machines, and its socket belongs to its owner alone", async () => {
    expect((await mesh.agent("b").http("/livez", { url: `http://${toA}:9780` })).status).toBe(0);
    expect((await mesh.agent("b").http("/livez", { url: `http://${mesh.agent("a").node.ip4}:9780` })).status).toBe(0);
    expect(statSync(mesh.agent("a").socket).mode & 0o777).toBe(0o600);
  });
});

describe("secrets", () => {
  it("are in no log and no argument list", () => {
    const keys = ["hub", "a", "b"].flatMap((name) => secretsBelow(mesh.agent(name).stateDir));
    expect(keys.length).toBeGreaterThan(0);
    const seen = `${mesh.logs()}\n${argumentLists()}`;
    for (const token of mesh.tokens) expect(seen).not.toContain(token.split("_")[1]);
    for (const key of keys) expect(seen.includes(key)).toBe(false);
  });

  it("are in files that only their owner can read", () => {
    for (const name of ["hub", "a", "b"]) {
      for (const file of filesBelow(mesh.agent(name).stateDir)) expect(statSync(file).mode & 0o077, file).toBe(0);
    }
  });
});

describe("leave", () => {
  it("ends the member, and the others forget it", async () => {
    await mesh.agent("b").ask(["leave"]);
    await until("a has no peer b", async () => {
      const { peers } = await mesh.agent("a").json(["peers"]);
      return !peers.some((peer: { name: string }) => peer.name === "b");
    });
    expect(await mesh.pings("a", toB)).toBe(false);
    expect((await mesh.agent("b").cli(["run"])).code).toBe(3);
  });
});

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile()).map((entry) => `${entry.parentPath}/${entry.name}`);
}

/** Keys in the state files, in the forms in which a careless program prints them: base64 and hex. */
function secretsBelow(folder: string): string[] {
  return filesBelow(folder).filter((file) => /key|identity|ident/i.test(file)).flatMap((file) => {
    const text = readFileSync(file, "latin1");
    return [...text.matchAll(/[A-Za-z0-9+/]{43}=|\b[0-9a-f]{64}\b/g)].map(([secret]) => secret);
  });
}

function argumentLists(): string {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
    } catch {
      return ""; // it has ended
    }
  }).join("\n");
}
