/** Policies, namespaces, CIDR groups and services, and what settings make of them. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  admit,
  app,
  hub,
  namespace,
  networkPolicy,
  recordOf,
  Replica,
  restart,
  settings,
  store,
  text,
} from "./fixture.ts";

export function testObjects(): void {
  describe("policies and namespaces", () => {
    const closed = networkPolicy("closed", {
      podSelector: app("web"),
      ingress: [{ from: [{ podSelector: app("client") }] }],
    });

    it("are stored all together, given back as they were, and deleted", async () => {
      const result = await hub.apply([closed, namespace("prod", { team: "core" })]);
      expect(result).toEqual({
        applied: [
          { kind: "NetworkPolicy", namespace: "default", name: "closed", action: "created" },
          { kind: "Namespace", namespace: "", name: "prod", action: "created" },
        ],
        revision: store.revision,
      });
      await restart();
      expect(hub.get()).toEqual([namespace("prod", { team: "core" }), closed]);
      expect(hub.get("NetworkPolicy")).toEqual([closed]);
      expect(hub.get("NetworkPolicy", "other")).toEqual([]);
      const again = await hub.apply([{ kind: "List", apiVersion: "v1", items: [closed] }]);
      expect(again).toMatchObject({ applied: [{ action: "unchanged" }] });
      expect(await hub.delete("NetworkPolicy", "default", "closed")).toBe(true);
      expect(await hub.delete("NetworkPolicy", "default", "closed")).toBe(false);
      expect(await hub.delete("Namespace", "", "prod")).toBe(true);
      expect(hub.get()).toEqual([]);
    });

    it("with one fault none is stored, and each fault is named", async () => {
      const bad = networkPolicy("bad", { podSelector: {}, ingres: [] });
      const result = await hub.apply([closed, bad, { kind: "Pod" }, 7, namespace("BAD", {})]);
      if (!("errors" in result)) throw new Error("stored");
      expect(result.errors.map((e) => e.index)).toEqual(expect.arrayContaining([1, 2, 3, 4]));
      expect(result.errors[0]).toMatchObject({
        object: "NetworkPolicy default/bad",
        message: expect.stringContaining("ingres"),
      });
      expect(hub.get()).toEqual([]);
      expect(await hub.apply([closed, closed])).toMatchObject({
        errors: [{ index: 1, message: "it is there twice" }],
      });
    });

    it("a dry run says what would happen and does nothing", async () => {
      const revision = store.revision;
      expect(await hub.apply([closed], true)).toMatchObject({ applied: [{ action: "created" }] });
      expect(store.revision).toBe(revision);
    });

    it("no document makes apply throw", async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(fc.anything(), { maxLength: 3 }), async (documents) => {
          await hub.apply(documents, true);
        }),
        { numRuns: 60 },
      );
    });

    it("a namespace's labels are in the identity of its members, also after a change", async () => {
      await admit(1, { app: "web" }, { namespace: "prod" });
      await admit(2, { app: "web" }, { namespace: "prod" });
      await admit(3, { app: "web" });
      const replica = new Replica().connect(hub, "m3");
      const before = replica.record("m1").identity;
      await hub.apply([namespace("prod", { team: "core" })]);
      hub.flush();
      const after = replica.record("m1").identity;
      expect(after).not.toBe(before);
      expect(replica.record("m2").identity).toBe(after);
      expect(replica.entries.get(`identity/${after}`)).toMatchObject({
        labels: { "k8s:io.cilium.k8s.namespace.labels.team": "core" },
      });
      expect(replica.entries.has(`identity/${before}`)).toBe(false);
      expect(replica.entries.get("namespace/prod")).toEqual({ labels: { team: "core" } });
      expect(JSON.parse(await text("cilium/state/ip/v1/default/10.9.0.2")).ID).toBe(after);
      await hub.delete("Namespace", "", "prod");
      expect(recordOf(hub.members()[0]!.record).identity).toBe(before);
    });
  });

  describe("CIDR groups and services", () => {
    const group = (name: string, ...externalCIDRs: string[]) => ({
      apiVersion: "cilium.io/v2",
      kind: "CiliumCIDRGroup",
      metadata: { name, labels: { site: "lyon" } },
      spec: { externalCIDRs },
    });
    const service = (name: string, spec: object = {}) => ({
      apiVersion: "v1",
      kind: "Service",
      metadata: { name, namespace: "shop", labels: { tier: "data" } },
      spec,
    });
    const slice = (name: string, of: string, ...addresses: string[]) => ({
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { name, namespace: "shop", labels: { "kubernetes.io/service-name": of } },
      addressType: "IPv4",
      endpoints: addresses.map((address) => ({ addresses: [address] })),
    });

    it("go to every member, a service with the addresses of all its slices", async () => {
      await admit(1);
      hub.flush();
      const replica = new Replica().connect(hub, "m1");
      const office = group("office", "192.0.2.0/24");
      await hub.apply([slice("db-1", "db", "198.51.100.7"), office]);
      hub.flush();
      expect(replica.entries.get("cidrgroup/office")).toEqual(office);
      expect(replica.entries.has("service/shop/db")).toBe(false); // no Service yet
      await hub.apply([service("db"), slice("db-2", "db", "198.51.100.8")]);
      hub.flush();
      expect(replica.entries.get("service/shop/db")).toEqual({
        labels: { tier: "data" },
        addresses: ["198.51.100.7", "198.51.100.8"],
      });
      await restart();
      expect(new Replica().connect(hub, "m1").keys).toEqual(replica.keys);
      replica.connect(hub, "m1");
      expect(hub.get("Service")).toEqual([service("db")]);
      expect(hub.get("EndpointSlice", "shop")).toHaveLength(2);
      expect(hub.get("CiliumCIDRGroup")).toEqual([office]);
      // a slice moves to another service
      await hub.apply([slice("db-2", "cache", "198.51.100.8"), service("cache", { selector: { app: "cache" } })]);
      hub.flush();
      expect(replica.entries.get("service/shop/db")).toMatchObject({ addresses: ["198.51.100.7"] });
      expect(replica.entries.get("service/shop/cache")).toEqual({
        labels: { tier: "data" },
        selector: { app: "cache" },
        addresses: [],
      });
      expect(await hub.delete("Service", "shop", "db")).toBe(true);
      expect(await hub.delete("CiliumCIDRGroup", "", "office")).toBe(true);
      expect(await hub.delete("CiliumCIDRGroup", "", "office")).toBe(false);
      expect(await hub.delete("EndpointSlice", "shop", "db-1")).toBe(true);
      hub.flush();
      expect(replica.keys.filter((key) => /^(service|cidrgroup)/.test(key))).toEqual(["service/shop/cache"]);
      expect(replica.keys).toEqual(new Replica().connect(hub, "m1").keys);
    });

    it("are refused with their faults, and when one service has more addresses than members take", async () => {
      const result = await hub.apply([
        group("bad", "192.0.2.0/33"),
        service("web", { type: "ExternalName" }),
        { ...slice("x", "db"), addressType: "FQDN" },
      ]);
      if (!("errors" in result)) throw new Error("stored");
      expect(result.errors.map(({ index, object }) => [index, object])).toEqual([
        [0, "CiliumCIDRGroup bad"],
        [1, "Service shop/web"],
        [2, "EndpointSlice shop/x"],
      ]);
      const many = [0, 1, 2, 3, 4].map((n) =>
        slice(`s${n}`, "db", ...Array.from({ length: 900 }, (_, i) => `10.${n}.${i >> 8}.${i & 255}`))
      );
      expect(await hub.apply([service("db"), ...many])).toMatchObject({
        errors: [{ message: "service shop/db would have 4500 addresses, more than 4096" }],
      });
      expect(hub.get()).toEqual([]);
    });

    it("tell in a dry run what members would be sent", async () => {
      await hub.apply([service("db"), slice("db-1", "db", "198.51.100.7")]);
      const policy = networkPolicy("p", { podSelector: {} });
      const more = slice("db-2", "db", "198.51.100.8");
      const result = await hub.apply([policy, more, service("db"), group("office", "192.0.2.0/24")], true);
      expect(result).toMatchObject({
        puts: [
          ["policy/NetworkPolicy/default/p", policy],
          ["cidrgroup/office", { kind: "CiliumCIDRGroup" }],
          ["service/shop/db", { addresses: ["198.51.100.7", "198.51.100.8"] }],
        ],
      });
      expect(hub.get("NetworkPolicy")).toEqual([]);
    });

    it("tell what members would be sent, were they deleted", async () => {
      const policy = networkPolicy("p", { podSelector: {} });
      const slices = [slice("db-1", "db", "198.51.100.7"), slice("db-2", "db", "198.51.100.8")];
      await hub.apply([service("db"), ...slices, policy, group("office", "192.0.2.0/24"), namespace("prod", {})]);
      const named = (kind: string, namespace: string, name: string) => ({ kind, namespace, name });
      const db2 = named("EndpointSlice", "shop", "db-2");
      expect(hub.previewDelete([db2, named("Service", "shop", "gone"), named("Namespace", "", "prod")])).toEqual({
        missing: [named("Service", "shop", "gone")],
        puts: [["service/shop/db", { labels: { tier: "data" }, addresses: ["198.51.100.7"] }]],
        deletes: [],
      });
      const all = [
        db2,
        named("Service", "shop", "db"),
        named("NetworkPolicy", "default", "p"),
        named("CiliumCIDRGroup", "", "office"),
      ];
      expect(hub.previewDelete(all)).toEqual({
        missing: [],
        puts: [],
        deletes: ["service/shop/db", "policy/NetworkPolicy/default/p", "cidrgroup/office"],
      });
      expect(hub.get()).toHaveLength(6);
    });
  });

  describe("policies that depend on settings", () => {
    const host = {
      apiVersion: "cilium.io/v2",
      kind: "CiliumClusterwideNetworkPolicy",
      metadata: { name: "host" },
      spec: { nodeSelector: {}, ingress: [{ fromEntities: ["cluster"] }] },
    };

    it("for hosts are refused by name while the host firewall is off", async () => {
      const result = await hub.apply([host]);
      expect(result).toMatchObject({
        errors: [{
          object: "CiliumClusterwideNetworkPolicy host",
          message: expect.stringContaining("--enable-host-firewall"),
        }],
      });
      await restart({ policy: { ...settings.policy, hostFirewall: true } });
      expect(await hub.apply([host])).toMatchObject({ applied: [{ action: "created" }] });
    });

    it("must have regular expressions that can be read", async () => {
      const http = (path: string) => ({
        apiVersion: "cilium.io/v2",
        kind: "CiliumNetworkPolicy",
        metadata: { name: "web", namespace: "shop" },
        spec: {
          endpointSelector: {},
          ingress: [{ toPorts: [{ ports: [{ port: "80", protocol: "TCP" }], rules: { http: [{ path }] } }] }],
        },
      });
      expect(await hub.apply([http("/a(")])).toMatchObject({ errors: [{ object: "CiliumNetworkPolicy shop/web" }] });
      expect(await hub.apply([http("/a.*")])).toMatchObject({ applied: [{ action: "created" }] });
    });

    it("changed settings reach members that resume", async () => {
      await admit(1);
      hub.flush();
      const replica = new Replica().connect(hub, "m1");
      replica.subscription!();
      const policy = { ...settings.policy, enforcementMode: "always" as const, auditMode: true };
      await restart({ policy });
      replica.connect(hub, "m1");
      expect(replica.entries.get("settings")).toMatchObject({ policy });
    });
  });
}
