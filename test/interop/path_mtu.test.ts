/**
 * A peer that is none of ours answers our probes of the way like any machine: Debian's wireguard-go behind a router that takes less
 * than its links, and says nothing.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { Lab, until } from "../../scripts/lab/lab.ts";
import type { Agent } from "../../scripts/lab/program.ts";
import { type End, makeEnd, makePsk, reaches, startFromMesh, WireguardGo } from "../../scripts/lab/peers.ts";

let lab: Lab;
let ours: End;
let theirs: End;
let other: WireguardGo | undefined;
let agent: Agent | undefined;

beforeAll(async () => {
  lab = await Lab.create(["a", "w"]);
  ours = await makeEnd(lab, "a", 1);
  theirs = await makeEnd(lab, "w", 2);
});
afterAll(async () => {
  await agent?.process?.stop();
  await other?.stop();
  await lab?.close();
});

it("the way to wireguard-go is found from its answers, and its packets are told what fits", async () => {
  const [a, w] = [lab.node("a"), lab.node("w")];
  // what it answers is as long as what it was asked, and padded to 16: a size passes when its answer does
  await lab.shell(`
    nsenter --net=/run/netns/router sh -ec '
      ip route add ${a.ip4} dev to-a mtu 1388
      ip route add ${w.ip4} dev to-w mtu 1388
    '
    nsenter --net=/run/netns/router nft -f - <<'END'
    table ip silent {
      chain output {
        type filter hook output priority 0;
        icmp type destination-unreachable drop
      }
    }
END
  `);
  const psk = await makePsk(lab);
  other = new WireguardGo(lab, theirs);
  await other.start({ end: ours, psk });
  agent = await startFromMesh(lab, ours, [{ end: theirs, psk, endpoint: `${w.ip4}:51871` }]);
  const started = agent;
  const seen: unknown[] = [];
  await reaches(lab, "a", theirs.mesh4);
  await until(
    "the way is known",
    async () => {
      const { peers } = await started.json(["peers"]);
      seen.push(peers[0].pathMtuBytes);
      return peers[0].pathMtuBytes === 1376;
    },
    30_000,
    () => `${seen.join(" ")}`,
  );
  const tooBig = await lab.run("a", ["ping", "-c1", "-W1", "-M", "do", "-s", "1300", theirs.mesh4]);
  expect(tooBig.stdout + tooBig.stderr).toMatch(/mtu ?= ?1262/); // 1376 - 60, down to a multiple of 16, less 50 of envelope
  // its answers to longer ones get lost on the way back, of which it knows nothing
  const fits = await lab.run("a", ["ping", "-c3", "-i0.2", "-W2", "-s", String(1262 - 28), theirs.mesh4]);
  expect(fits.stdout).toContain("3 received");
}, 90_000);
