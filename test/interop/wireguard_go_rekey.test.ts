/**
 * Rekeying with Debian's wireguard-go. WireGuard renews keys after 120 seconds, and wireguard-go has no switch for it, so this
 * one waits: one of our sessions was started by us, the other by wireguard-go, both are watched over the same two minutes.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { Lab } from "../../scripts/lab/lab.ts";
import { answered, makeEnd, makePsk, reaches, startFromMesh, WireguardGo } from "../../scripts/lab/peers.ts";

let lab: Lab;
beforeAll(async () => {
  lab = await Lab.create(["a", "v", "w"]);
});
afterAll(() => lab?.close());

it("renews the keys after two minutes, as initiator and as responder, and loses no packet over it", async () => {
  const [ours, first, second] = await Promise.all([makeEnd(lab, "a", 1), makeEnd(lab, "v", 2), makeEnd(lab, "w", 3)]);
  const psk = await makePsk(lab);
  const v = new WireguardGo(lab, first);
  const w = new WireguardGo(lab, second);
  await v.start({ end: ours, psk });
  await startFromMesh(lab, ours, [{ end: first, psk, endpoint: `${lab.node("v").ip4}:51871` }, { end: second, psk }]);
  await w.start({ end: ours, psk, endpoint: `${lab.node("a").ip4}:51871` });
  await reaches(lab, "a", first.mesh4);
  await reaches(lab, "w", ours.mesh4);
  const before = [await v.lastHandshake(), await w.lastHandshake()];
  expect(await Promise.all([answered(lab, "a", first.mesh4, 270, 0.5), answered(lab, "w", ours.mesh4, 270, 0.5)]))
    .toEqual([270, 270]);
  const after = [await v.lastHandshake(), await w.lastHandshake()];
  for (const i of [0, 1]) {
    expect(after[i]! - before[i]!).toBeGreaterThanOrEqual(119);
    expect(after[i]! - before[i]!).toBeLessThanOrEqual(135);
  }
  // the sessions carry on after it, both ways
  expect(await answered(lab, "v", ours.mesh4, 5)).toBe(5);
  expect(await answered(lab, "a", second.mesh4, 5)).toBe(5);
  expect((await v.stop()).faults + (await w.stop()).faults).toBe(0);
}, 200_000);
