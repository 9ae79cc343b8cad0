import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ENODEV } from "../../ffi/errno.ts";
import { type Netlink, openNetlink } from "../../ffi/netlink.ts";
import { attributesIn, messagesIn, MessageWriter } from "../../ffi/netlink_message.ts";
import { makeArena } from "../../ffi/sodium.ts";
import { openTun, type TunDevice } from "../../ffi/tun.ts";
import { formatPrefix, parseAddress, parsePrefix } from "../../src/ip/address.ts";
import { NO_OFFLOADS } from "../../src/offload/switches.ts";
import fc from "fast-check";
import { hasIpv6, noNetwork, runtimeName } from "./harness.ts";

describe.skipIf(noNetwork)(`netlink on ${runtimeName}${noNetwork}`, () => {
  let netlink: Netlink;
  let tun: TunDevice;
  let index = 0;
  beforeEach(() => {
    netlink = openNetlink();
    tun = openTun({ name: "edgemesh-t1", arena: makeArena(4096), offload: NO_OFFLOADS });
    index = netlink.findLink(tun.name)!.index;
  });
  afterEach(() => {
    tun.close();
    netlink.close();
  });

  const prefix = (text: string) => parsePrefix(text)!;

  function addressesOf(link: number): string[] {
    return netlink.listAddresses().filter((each) => each.index === link).map((each) => formatPrefix(each.prefix));
  }

  it("finds links by name, sets their MTU, and takes them up and down", () => {
    expect(netlink.findLink("lo")!.index).toBe(1);
    expect(netlink.findLink("edgemesh-none")).toBeUndefined();
    netlink.setLinkUp(index, 1355);
    expect(netlink.findLink(tun.name)).toEqual({ index, name: tun.name, mtu: 1355, isUp: true });
    netlink.setLinkUp(index, 1400);
    expect(netlink.findLink(tun.name)!.mtu).toBe(1400);
    netlink.setLinkDown(index);
    expect(netlink.findLink(tun.name)!.isUp).toBe(false);
  });

  it("adds and removes addresses; the same one twice is fine, and so is removing what is not there", () => {
    netlink.setLinkUp(index, 1355);
    const wanted = ["10.88.0.1/32", "10.88.1.1/24", ...(hasIpv6 ? ["fd88::1/128", "fd88:1::1/64"] : [])];
    for (const text of wanted) netlink.addAddress(index, prefix(text));
    for (const text of wanted) netlink.addAddress(index, prefix(text));
    expect(addressesOf(index)).toEqual(expect.arrayContaining(wanted));
    for (const text of wanted) netlink.removeAddress(index, prefix(text));
    for (const text of wanted) netlink.removeAddress(index, prefix(text));
    for (const text of wanted) expect(addressesOf(index)).not.toContain(text);
  });

  it("an IPv6 address with another prefix length is a conflict", { skip: !hasIpv6 }, () => {
    netlink.setLinkUp(index, 1355);
    netlink.addAddress(index, prefix("fd88::5/64"));
    expect(() => netlink.addAddress(index, prefix("fd88::5/128"))).toThrow(
      expect.objectContaining({ code: "EDGE_NETLINK_CONFLICT" }),
    );
  });

  it("adds routes with source, MTU and segment size; the same one twice is fine, and so is removing what is not there", () => {
    netlink.setLinkUp(index, 1355);
    netlink.addAddress(index, prefix("10.88.0.1/32"));
    const source = parseAddress("10.88.0.1")!;
    const v4 = { destination: prefix("10.99.3.7/16"), index, source, mtu: 1300, advmss: 1200 };
    const plain = { destination: prefix("10.98.0.0/16"), index };
    netlink.addRoute(v4);
    netlink.addRoute(v4);
    netlink.addRoute(plain);
    netlink.addRoute(plain);
    const listed = netlink.listRoutes();
    expect(listed).toContainEqual({
      destination: prefix("10.99.0.0/16"),
      index,
      source,
      mtu: 1300,
      advmss: 1200,
      metric: 0,
      protocol: 4,
      table: 254,
    });
    netlink.removeRoute(v4);
    netlink.removeRoute(v4);
    expect(netlink.listRoutes().some((route) => formatPrefix(route.destination) === "10.99.0.0/16")).toBe(false);
    expect(netlink.listRoutes().some((route) => formatPrefix(route.destination) === "10.98.0.0/16")).toBe(true);
  });

  it("does the same for IPv6", { skip: !hasIpv6 }, () => {
    netlink.setLinkUp(index, 1355);
    netlink.addAddress(index, prefix("fd88::1/128"));
    const route = { destination: prefix("fd99::/48"), index, source: parseAddress("fd88::1")!, mtu: 1300 };
    netlink.addRoute(route);
    netlink.addRoute(route);
    const found = netlink.listRoutes().filter((each) => formatPrefix(each.destination) === "fd99::/48");
    expect(found).toMatchObject([{ index, metric: 1024, table: 254, mtu: 1300, source: route.source }]);
    expect(() => netlink.addRoute({ ...route, mtu: 1280 })).toThrow(
      expect.objectContaining({ code: "EDGE_NETLINK_CONFLICT" }),
    );
    netlink.removeRoute(route);
    netlink.removeRoute(route);
  });

  it("default routes, metrics and tables beyond 255 are told apart", () => {
    netlink.setLinkUp(index, 1355);
    for (const route of [{ metric: 50 }, { metric: 51 }, { table: 51_820 }]) {
      netlink.addRoute({ destination: prefix("0.0.0.0/0"), index, ...route });
    }
    const found = netlink.listRoutes().filter((route) => formatPrefix(route.destination) === "0.0.0.0/0");
    expect(found.map((route) => [route.table, route.metric]).sort()).toEqual([[254, 50], [254, 51], [51_820, 0]]);
  });

  it("a route that leads to another device is a conflict, and the message says where to", () => {
    netlink.setLinkUp(index, 1355);
    const other = openTun({ name: "edgemesh-t2", arena: makeArena(4096), offload: NO_OFFLOADS });
    const otherIndex = netlink.findLink(other.name)!.index;
    netlink.setLinkUp(otherIndex, 1355);
    netlink.addRoute({ destination: prefix("10.97.0.0/16"), index: otherIndex });
    expect(() => netlink.addRoute({ destination: prefix("10.97.0.0/16"), index })).toThrow(
      expect.objectContaining({
        code: "EDGE_NETLINK_CONFLICT",
        message: expect.stringContaining(`a different one is there, to link ${otherIndex}`),
      }),
    );
    other.close();
  });

  it("a guard is made once, and is taken back", () => {
    const families = ["169.254.101.2/32", ...(hasIpv6 ? ["fd65:6d65:7368::2/128"] : [])];
    for (const text of families) {
      for (const refused of [{ firstUser: 0, lastUser: 0 }, "forwarded"] as const) {
        const guard = { destination: prefix(text), refused };
        netlink.addGuard(guard);
        netlink.addGuard(guard);
        netlink.removeGuard(guard);
        netlink.removeGuard(guard);
      }
    }
  });

  it("a link that is not there gives an error that names it", () => {
    const gone = 99_999;
    expect(() => netlink.setLinkUp(gone, 1355)).toThrow(
      expect.objectContaining({
        code: "EDGE_NETLINK_FAILED",
        errno: ENODEV,
        message: expect.stringContaining(`${gone}`),
      }),
    );
    expect(() => netlink.addAddress(gone, prefix("10.0.0.1/32"))).toThrow(
      expect.objectContaining({ code: "EDGE_NETLINK_FAILED" }),
    );
    netlink.removeAddress(gone, prefix("10.0.0.1/32"));
    netlink.removeRoute({ destination: prefix("10.0.0.0/8"), index: gone });
    expect(() => netlink.setLinkUp(index, 10)).toThrow(expect.objectContaining({ code: "EDGE_NETLINK_FAILED" }));
  });

  it("lists more routes than one answer holds", () => {
    netlink.setLinkUp(index, 1355);
    for (let i = 0; i < 1500; i++) {
      netlink.addRoute({ destination: prefix(`10.${100 + (i >> 8)}.${i & 255}.0/24`), index });
    }
    const found = netlink.listRoutes().filter((route) =>
      route.index === index && route.destination.address.length === 4
    );
    expect(found).toHaveLength(1500);
  });
});

describe("netlink messages", () => {
  it("attributes that were written are read back, nested ones too", () => {
    const writer = new MessageWriter(new Uint8Array(128));
    const at = writer.start(24, 5, 77, 12);
    writer.attribute(1, Uint8Array.of(10, 0, 0, 1));
    writer.attribute(3, Uint8Array.of(1, 2, 3));
    writer.nested(8, () => writer.attributeU32(2, 1300));
    const [message, ...rest] = messagesIn(writer.bytes, writer.end);
    expect(rest).toEqual([]);
    expect(message).toEqual({ type: 24, flags: 5, sequence: 77, bodyAt: at, end: writer.end });
    const attributes = attributesIn(writer.bytes, at + 12, writer.end);
    expect(attributes.get(1)).toEqual(Uint8Array.of(10, 0, 0, 1));
    expect(attributes.get(3)).toEqual(Uint8Array.of(1, 2, 3));
    const nested = attributes.get(8)!;
    expect(attributesIn(nested, 0, nested.length).get(2)).toEqual(Uint8Array.of(0x14, 5, 0, 0));
  });

  it("a message that does not fit its room is refused", () => {
    const writer = new MessageWriter(new Uint8Array(32));
    writer.start(24, 0, 1, 12);
    expect(() => writer.attributeU32(1, 1)).toThrow(RangeError);
  });

  it("reading ends, and stays inside, on any octets", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const message of messagesIn(bytes, bytes.length)) {
        expect(message.end).toBeLessThanOrEqual(bytes.length);
        for (const value of attributesIn(bytes, message.bodyAt, message.end).values()) {
          expect(value.length).toBeLessThanOrEqual(message.end - message.bodyAt);
        }
      }
    }));
  });
});
