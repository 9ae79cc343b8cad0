/**
 * Wireshark as a judge of what we put on the wire: it opens our WireGuard with a key log, takes the Geneve inside apart and
 * checks every checksum. Traffic of both families, small and in TCP superpackets, is captured on the router between two members.
 */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, until } from "../../scripts/lab/lab.ts";
import { type End, makeEnd, PYTHON, reaches, startFromMesh } from "../../scripts/lab/peers.ts";

/** One frame of the capture; a name that occurs on several layers has several values, outermost first. */
interface Frame {
  readonly number: string;
  readonly protocols: string;
  readonly ipSource: string[];
  readonly wireguardType: string;
  readonly vni: string;
  readonly ethernetType: string[];
  /** groups of Wireshark's remarks */
  readonly remarks: number[];
  readonly tcpChecksum: string;
  readonly malformed: string;
}

const FIELDS = [
  ...[
    "frame.number",
    "frame.protocols",
    "ip.src",
    "wg.type",
    "geneve.vni",
    "eth.type",
    "_ws.expert.group",
    "tcp.checksum.status",
    "_ws.malformed",
  ],
];

/** Groups of remarks about the course of a conversation (a reset, a request, a response), not about packets: PI_SEQUENCE and its like. */
const HARMLESS = [0x0200_0000, 0x0300_0000, 0x0400_0000];
/** `tcp.checksum.status` */
const GOOD = "1";

let lab: Lab;
let a: End;
let b: End;
let frames: Frame[];

beforeAll(async () => {
  lab = await Lab.create(["a", "b"]);
  a = await makeEnd(lab, "a", 1);
  b = await makeEnd(lab, "b", 2);
  const capture = join(lab.dir, "wire.pcap");
  const keys = join(lab.dir, "wireguard.keys");
  // the capture sees what leaves the machine: datagrams one by one, with the checksums that a real card would fill in
  for (const name of ["a", "b"]) {
    await lab.shell(`nsenter --net=/run/netns/${name} ethtool -K eth0 tx off gso off >/dev/null`);
  }
  const tcpdump = lab.start("a", "tcpdump", ["tcpdump", "-Z", "root", "-U", "-n", "-i", "eth0", "-w", capture, "udp"]);
  await tcpdump.saw(/listening on/);
  await startFromMesh(lab, b, [{ end: a }]);
  await startFromMesh(lab, a, [{ end: b, endpoint: `${lab.node("b").ip4}:51871` }], {
    flags: ["--key-log-file", keys],
  });
  await reaches(lab, "a", b.mesh4);
  await reaches(lab, "b", a.mesh6);
  await lab.run("b", ["dd", "if=/dev/urandom", `of=${lab.node("b").dir}/bulk`, "bs=1M", "count=2", "status=none"]);
  for (const address of [b.mesh4, b.mesh6]) {
    const server = lab.start("b", `http-${address}`, [
      PYTHON,
      "-u",
      "-m",
      "http.server",
      "8080",
      "--bind",
      address,
      "-d",
      lab.node("b").dir,
    ]);
    const url = address.includes(":") ? `http://[${address}]:8080/bulk` : `http://${address}:8080/bulk`;
    const got = await lab.run("a", [
      ...[
        "curl",
        "-s",
        "-g",
        "-m",
        "30",
        "--retry",
        "10",
        "--retry-connrefused",
        "--retry-delay",
        "1",
        "-o",
        "/dev/null",
        url,
      ],
    ]);
    expect(got.code).toBe(0);
    await server.stop();
  }
  // one UDP datagram to a closed port: an ICMP error, whose quoted header is judged too
  await lab.run("a", [
    PYTHON,
    "-c",
    `import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x" * 700, ("${b.mesh4}", 9))`,
  ]);
  await until("the error has come back", async () => (await dissect(capture, keys, "icmp.type == 3")).length > 0);
  await tcpdump.stop();
  frames = await dissect(capture, keys, "wg");
}, 120_000);
afterAll(() => lab?.close());

async function dissect(capture: string, keys: string, filter: string): Promise<Frame[]> {
  const preferences = [
    `wg.keylog_file:${keys}`,
    "ip.check_checksum:TRUE",
    "udp.check_checksum:TRUE",
    "tcp.check_checksum:TRUE",
  ];
  const done = await lab.run("router", [
    ...["tshark", "-r", capture, "-Y", filter, "-T", "fields", "-E", "separator=/t", "-E", "aggregator=,"],
    ...preferences.flatMap((preference) => ["-o", preference]),
    ...FIELDS.flatMap((field) => ["-e", field]),
  ]);
  if (done.code !== 0 && done.stdout === "") throw new Error(`Cannot run tshark: ${done.stderr}`);
  return done.stdout.split("\n").filter((line) => line !== "").map((line) => {
    const [number, protocols, ipSource, wireguardType, vni, ethernetType, remarks, tcpChecksum, malformed] = line.split(
      "\t",
    );
    return {
      number: number!,
      protocols: protocols!,
      ipSource: ipSource!.split(","),
      wireguardType: wireguardType!,
      vni: vni!,
      ethernetType: ethernetType!.split(","),
      remarks: remarks!.split(",").filter((group) => group !== "").map(Number),
      tcpChecksum: tcpChecksum!,
      malformed: malformed ?? "",
    };
  });
}

describe("Wireshark", () => {
  it("knows every datagram as WireGuard: handshake, then data", () => {
    expect(frames.length).toBeGreaterThan(100);
    expect(new Set(frames.map(({ wireguardType }) => wireguardType))).toEqual(new Set(["1", "2", "4"]));
  });

  it("opens every data message with the key log and finds Geneve with inner Ethernet in it", () => {
    const data = frames.filter(({ wireguardType }) => wireguardType === "4");
    // an empty data message is a keepalive
    // what finds out the path MTU: echoes between the nodes' own addresses
    const probes = data.filter(({ protocols }) => protocols.endsWith(":wg:ip:icmp:data"));
    for (const { ipSource } of probes) expect(ipSource.at(-1)).toMatch(/^172\.31\.0\.[12]$/);
    const sealed = data.filter((frame) => !probes.includes(frame)).filter(({ protocols }) =>
      !/:wg:ip:udp:geneve:eth:/.test(protocols) && /:wg:/.test(`${protocols}:`) && !protocols.endsWith(":wg")
    );
    expect(sealed).toEqual([]);
    const opened = data.filter(({ vni }) => vni !== "");
    expect(opened.length).toBeGreaterThan(100);
    for (const { ethernetType } of opened) expect(["0x0800", "0x86dd"]).toContain(ethernetType.at(-1));
    expect(new Set(opened.map(({ ethernetType }) => ethernetType.at(-1)))).toEqual(new Set(["0x0800", "0x86dd"]));
  });

  it("reads the identity of the sender in every VNI", () => {
    for (const { vni, ipSource } of frames.filter(({ vni }) => vni !== "")) {
      const [, outer] = ipSource; // the first is the machine's, the second the node's
      expect(Number(vni)).toBe(outer === a.underlay ? a.identity : b.identity);
    }
  });

  it("finds no malformed packet, no wrong checksum and nothing else to complain about", () => {
    expect(frames.filter(({ malformed }) => malformed !== "")).toEqual([]);
    expect(frames.filter(({ remarks }) => remarks.some((group) => !HARMLESS.includes(group)))).toEqual([]);
    expect(frames.filter(({ tcpChecksum }) => tcpChecksum === GOOD).length).toBeGreaterThan(100);
    expect(frames.filter(({ tcpChecksum }) => ![GOOD, ""].includes(tcpChecksum))).toEqual([]);
  });
});
