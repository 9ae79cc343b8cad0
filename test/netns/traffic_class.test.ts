/**
 * DSCP and ECN between inner and outer headers (RFC 6040, normal mode), as nft on the router and on the receiver sees them: what a
 * program says is seen outside, and a mark that congestion leaves outside reaches the program that can make use of it.
 */
import { afterEach, describe, expect, it } from "vitest";
import { until } from "../../scripts/lab/lab.ts";
import { Mesh } from "./mesh.ts";

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.close();
  mesh = undefined;
});

const PINGS = 5;
const DSCPS = { 0x00: "cs0", 0xb8: "ef" } as const;
const ECNS = { 0: "not-ect", 2: "ect0", 3: "ce" } as const;
const CLASSES = Object.keys(DSCPS).flatMap((dscp) => Object.keys(ECNS).map((ecn) => Number(dscp) | Number(ecn)));

/** A rule for each class: counts what `match` lets through. */
function counters(match: string): string {
  return CLASSES.flatMap((each) =>
    ["ip", "ip6"].map((ip) => {
      const [dscp, ecn] = [DSCPS[(each & 0xfc) as keyof typeof DSCPS], ECNS[(each & 3) as keyof typeof ECNS]];
      return `${match} ${ip} dscp ${dscp} ${ip} ecn ${ecn} counter comment "${each}"`;
    })
  ).join("\n");
}

async function watch({ lab }: Mesh): Promise<void> {
  await lab.shell(`
    nsenter --net=/run/netns/router nft -f - <<'END'
    table inet congestion {
      chain forward {
        type filter hook forward priority 10;
      }
    }
    table inet seen {
      chain forward {
        type filter hook forward priority 0;
        ${counters('iifname "to-a" oifname "to-b" udp dport { 51871, 6081 }')}
      }
    }
END
    nsenter --net=/run/netns/b nft -f - <<'END'
    table inet seen {
      chain input {
        type filter hook input priority 0;
        ${counters('iifname "edgemesh0" meta l4proto { icmp, ipv6-icmp }')}
      }
    }
END
  `);
}

/** Packets by class so far. */
async function seen({ lab }: Mesh, name: "router" | "b"): Promise<ReadonlyMap<number, number>> {
  const { stdout } = await lab.run(name, ["nft", "list", "table", "inet", "seen"]);
  const counts = new Map<number, number>();
  for (const [, packets, each] of stdout.matchAll(/counter packets (\d+) bytes \d+ comment "(\d+)"/g)) {
    counts.set(Number(each), (counts.get(Number(each)) ?? 0) + Number(packets));
  }
  return counts;
}

/** Pings b of that class; how it looks on the wire, and in b. WireGuard's own messages and probes of the path do not count. */
async function look(mesh: Mesh, trafficClass: number, family: 4 | 6): Promise<{ outer: number[]; inner: number[] }> {
  const before = [await seen(mesh, "router"), await seen(mesh, "b")] as const;
  const argv = ["ping", "-c", `${PINGS}`, "-i0.1", "-W2", "-Q", `${trafficClass}`, await mesh.address("b", family)];
  const done = await mesh.lab.run("a", argv);
  expect(done.code, done.stdout).toBe(0);
  const after = [await seen(mesh, "router"), await seen(mesh, "b")] as const;
  const [outer, inner] = after.map((counts, i) =>
    CLASSES.filter((each) => (counts.get(each) ?? 0) - (before[i]!.get(each) ?? 0) >= PINGS)
  );
  return { outer: outer!, inner: inner! };
}

describe.each([4, 6] as const)("over an IPv%i underlay", (underlay) => {
  it.each(
    [
      ["a tunnel inside WireGuard", []],
      ["native", ["--routing-mode", "native"]],
      ["a tunnel without encryption", ["--encryption", "none"]],
    ] as const,
  )("%s: ECN goes both ways, DSCP outwards where it is asked for", async (_, flags) => {
    mesh = await Mesh.start(["a", "b"], { underlay, flags: [...flags] });
    await mesh.join("a", "--copy-dscp", "on");
    await mesh.join("b");
    for (const family of [4, 6] as const) {
      const address = await mesh.address("b", family);
      await until(`a pings b over IPv${family}`, () => mesh!.pings("a", address));
    }
    await watch(mesh);
    for (const family of [4, 6] as const) {
      expect(await look(mesh, 0x00, family)).toEqual({ outer: [0x00], inner: [0x00] });
      expect(await look(mesh, 0x02, family)).toEqual({ outer: [0x02], inner: [0x02] });
      expect(await look(mesh, 0xba, family)).toEqual({ outer: [0xba], inner: [0xba] });
    }
    // a queue on the way is full; it marks even what did not ask for it, as none should
    const ip = underlay === 4 ? "ip" : "ip6";
    const rule = ["add", "rule", "inet", "congestion", "forward", "iifname", "to-a", ip, "ecn", "set", "ce"];
    expect((await mesh.lab.run("router", ["nft", ...rule])).code).toBe(0);
    for (const family of [4, 6] as const) {
      expect((await look(mesh, 0x02, family)).inner, "can be told").toEqual([0x03]);
      expect((await look(mesh, 0xb8, family)).inner, "cannot be told").toEqual([0xb8]);
    }
  }, 60_000);
});
