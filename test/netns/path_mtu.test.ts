/**
 * Ways of many widths between two members, over IPv4 and IPv6: a router in the middle takes less than the members' own links. It says
 * so, or it swallows what is too big without a word, fragments too. Whatever it does, all sizes of pings get through, and TCP is
 * quick to find its own.
 */
import { afterEach, describe, expect, it } from "vitest";
import { until } from "../../scripts/lab/lab.ts";
import { Mesh, TRAFFIC } from "./mesh.ts";

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

/** What the router does with what is too big: tells the sender, or nothing. */
type Manner = "says so" | "is silent" | "is silent, and fragments get lost";

/** Narrows the way between a and b, in both directions; the hub's ways stay as they are. */
async function narrow({ lab }: Mesh, bytes: number, manner: Manner): Promise<void> {
  const [a, b] = [lab.node("a"), lab.node("b")];
  await lab.shell(`
    nsenter --net=/run/netns/router sh -ec '
      for pair in "${a.ip4} ${b.ip4} to-b" "${b.ip4} ${a.ip4} to-a"; do
        set -- $pair
        ip rule add from $1 to $2 lookup 10$(($(ip rule | wc -l)))
        table=$(ip rule | sed -n "s/.*from $1 to $2 lookup //p")
        ip route add $2 dev $3 mtu ${bytes} table $table
      done
      for pair in "${a.ip6} ${b.ip6} to-b" "${b.ip6} ${a.ip6} to-a"; do
        set -- $pair
        ip -6 rule add from $1 to $2 lookup 20$(($(ip -6 rule | wc -l)))
        table=$(ip -6 rule | sed -n "s/.*from $1 to $2 lookup //p")
        ip -6 route add $2 dev $3 mtu ${bytes} table $table
      done
    '
  `);
  if (manner === "says so") return;
  await lab.shell(`
    nsenter --net=/run/netns/router nft -f - <<'END'
    table inet silent {
      chain output {
        type filter hook output priority 0;
        icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop
      }
    }
END
  `);
  if (manner === "is silent") return;
  for (const name of ["a", "b"]) {
    await lab.shell(`
      nsenter --net=/run/netns/${name} nft -f - <<'END'
      table ip lossy {
        chain in {
          type filter hook prerouting priority -450;
          iifname "eth0" ip frag-off & 0x3fff != 0 drop
        }
      }
END
    `);
  }
}

async function pathOf(mesh: Mesh, from: string, to: string): Promise<number | null> {
  const { peers } = await mesh.agent(from).json(["peers"]);
  return peers.find((peer: { name: string }) => peer.name === to)?.pathMtuBytes;
}

/** Both members know the way. */
async function findPath(mesh: Mesh, bytes: number): Promise<void> {
  for (const [from, to] of [["a", "b"], ["b", "a"]] as const) {
    const address = await mesh.address(to);
    await until(`${from} pings ${to}`, () => mesh.pings(from, address));
    await until(
      `${from} finds a way of ${bytes} octets to ${to}`,
      async () => await pathOf(mesh, from, to) === bytes,
      40_000,
      () => mesh.agent(from).process!.log(),
    );
  }
}

/** All sizes, with and without "don't fragment", in both families; then TCP and UDP, both ways. */
async function checkTraffic(mesh: Mesh): Promise<void> {
  const { lab } = mesh;
  for (const [from, to] of [["a", "b"], ["b", "a"]] as const) {
    const [v4, v6] = [await mesh.address(to, 4), await mesh.address(to, 6)];
    for (const octets of from === "a" ? [0, 1100, 1250, 1327, 4000] : [1327]) {
      const size = ["-s", String(octets)];
      const loose = await lab.run(from, ["ping", "-c2", "-i0.2", "-W1", "-M", "dont", ...size, v4]);
      const drops = JSON.stringify((await mesh.agent(from).json(["status"])).traffic);
      expect(loose.stdout, `${from} pings ${to} with ${octets} octets: ${drops}`).toContain("2 received");
      // the first ones may be answered with what fits: the kernel learns from that
      expect((await lab.run(from, ["ping", "-c3", "-i0.2", "-W1", ...size, v4])).code, `${octets} to ${v4}`).toBe(0);
      expect((await lab.run(from, ["ping", "-c3", "-i0.2", "-W1", ...size, v6])).code, `${octets} to ${v6}`).toBe(0);
    }
    const server = await mesh.serve(to, 8080);
    for (const address of [v4, v6]) {
      const sent = await lab.run(from, [...TRAFFIC, "send", address, "8080", "5"], { timeoutMs: 60_000 });
      expect(sent.code, `TCP from ${from} to ${address}: ${sent.stdout}${sent.stderr}`).toBe(0);
    }
    await server.stop();
    const echo = lab.start(to, `udp-${to}`, [...TRAFFIC, "udp-serve", "9090"]);
    await echo.saw(/ready/);
    for (const octets of [10, 1300, 4000]) {
      await until(
        `${octets} octets of UDP come back to ${from}`,
        async () => (await lab.run(from, [...TRAFFIC, "udp", v4, "9090", String(octets)])).code === 0,
      );
    }
    await echo.stop();
  }
}

async function start(underlay: 4 | 6, underlayMtu?: number, hubFlags: readonly string[] = []): Promise<Mesh> {
  const flags = underlayMtu === undefined ? [] : ["--underlay-mtu", String(underlayMtu)];
  mesh = await Mesh.start(["a", "b"], { underlay, flags: [...flags, ...hubFlags] });
  if (underlayMtu !== undefined) {
    for (const name of ["hub", "a", "b"]) {
      await mesh.lab.shell(`
        ip -n router link set to-${name} mtu ${underlayMtu}
        ip -n ${name} link set eth0 mtu ${underlayMtu}
      `);
    }
  }
  for (const name of ["a", "b"]) await mesh.join(name, ...flags);
  return mesh;
}

describe.each([4, 6] as const)("over an IPv%i underlay", (underlay) => {
  it.each(
    [
      [1280, "says so"],
      [1280, "is silent"],
      [1376, "is silent"],
      [1420, "is silent"],
      [1492, "is silent"],
    ] as const,
  )("everything goes over a way of %i octets whose router %s", async (bytes, manner) => {
    const mesh = await start(underlay);
    await narrow(mesh, bytes, manner);
    await findPath(mesh, bytes);
    await checkTraffic(mesh);
    const { peers } = await mesh.agent("a").json(["status"]);
    expect(peers).toMatchObject({ withNarrowPath: 1, leastPathMtuBytes: bytes });
    expect(await mesh.agent("a").ask(["peers", "-o", "wide"])).toMatch(new RegExp(`\\b${bytes}\\b`));
  }, 180_000);

  it("jumbo frames are used, and where the way takes less that is found", async () => {
    const mesh = await start(underlay, 9000);
    await findPath(mesh, 9000);
    await checkTraffic(mesh);
    const { traffic } = await mesh.agent("a").json(["status"]);
    expect(traffic.egressDrops.PACKET_TOO_BIG ?? 0).toBe(0);
  }, 180_000);

  it("jumbo frames give way to 1500 octets in the middle", async () => {
    const mesh = await start(underlay, 9000);
    await narrow(mesh, 1500, "is silent");
    await findPath(mesh, 1500);
    await checkTraffic(mesh);
  }, 180_000);
});

it("where fragments get lost, too, what can go without them does", async () => {
  const mesh = await start(4);
  await narrow(mesh, 1420, "is silent, and fragments get lost");
  await findPath(mesh, 1420);
  await checkTraffic(mesh);
}, 180_000);

it("a way that becomes narrow and silent while a connection is open is found, and the connection goes on", async () => {
  const mesh = await start(6);
  await findPath(mesh, 1500);
  const server = await mesh.serve("b", 8080);
  const address = await mesh.address("b");
  expect((await mesh.lab.run("a", [...TRAFFIC, "send", address, "8080", "5"])).code).toBe(0);
  await narrow(mesh, 1376, "is silent");
  const sent = await mesh.lab.run("a", [...TRAFFIC, "send", address, "8080", "20"], { timeoutMs: 120_000 });
  expect(sent.code, sent.stdout + sent.stderr).toBe(0);
  await until("a knows the way", async () => await pathOf(mesh, "a", "b") === 1376, 40_000);
  await server.stop();
}, 200_000);

// nothing is probed there: its own machine and routers fragment what is too big
it.each(
  [[4, "says so"], [4, "is silent"], [6, "says so"]] as const,
)(
  "without encryption everything goes over IPv%i through a way of 1400 octets whose router %s",
  async (family, manner) => {
    const started = await start(family, undefined, ["--encryption", "none"]);
    await narrow(started, 1400, manner);
    for (const [from, to] of [["a", "b"], ["b", "a"]] as const) {
      const address = await started.address(to);
      await until(`${from} pings ${to}`, () => started.pings(from, address));
      // the first large one tells the machine about the way, where it is told
      await until(`${from} sends large packets`, async () => {
        return (await started.lab.run(from, ["ping", "-c1", "-W1", "-s", "1327", address])).code === 0;
      });
    }
    await checkTraffic(started);
    expect(await pathOf(started, "a", "b")).toBeNull();
  },
  180_000,
);

it("path discovery can be switched off", async () => {
  const started = mesh = await Mesh.start(["a", "b"]);
  for (const name of ["a", "b"]) await started.join(name, "--path-mtu-discovery", "off", "--copy-dscp", "on");
  const address = await started.address("b");
  await until("a pings b", () => started.pings("a", address));
  const marked = await started.lab.run("a", ["ping", "-c3", "-i0.2", "-W2", "-Q", "0xb8", address]);
  expect(marked.code).toBe(0);
  expect(await pathOf(started, "a", "b")).toBeNull();
}, 60_000);
