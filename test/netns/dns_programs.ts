/** A name server and a program that asks it, for nodes of the lab: plain Node, not the program under test. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Lab, Running } from "../../scripts/lab/lab.ts";

/** The address of every name that starts with "new". */
export const NEW_ADDRESS = "198.51.100.99";
/** Every other name has one address too; one that starts with "big" has 200, by TCP. TXT tells who asks. */
const SERVER = `
const packet = require(process.argv[2]);
const answer = (query, from, isTcp) => {
  const { id, questions } = packet.decode(query);
  const { name, type } = questions[0];
  const isBig = name.startsWith("big") && type === "A";
  const one = (data) => ({ type, name, ttl: 60, data });
  const answers = type === "TXT" ? [one(from)] : type !== "A" ? [] : !isBig ? [one(name.startsWith("new") ? "${NEW_ADDRESS}" : "198.51.100.7")] :
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

export class DnsPrograms {
  private readonly lab: Lab;

  constructor(lab: Lab) {
    this.lab = lab;
  }

  /** Answers on port 53 of all addresses of a node, by UDP and TCP. */
  async serve(node: string): Promise<Running> {
    const file = join(this.lab.node(node).dir, "dns.cjs");
    writeFileSync(file, SERVER);
    const library = join(import.meta.dirname, "../../node_modules/dns-packet/index.js");
    const server = this.lab.start(node, "dns", ["node", file, library]);
    await server.saw(/^ready$/m);
    return server;
  }

  /** What a program on a node is told: "<count> <first>", or the error's code. */
  async ask(node: string, at: string, name: string, type = "A"): Promise<string> {
    const file = join(this.lab.node(node).dir, "ask.cjs");
    writeFileSync(file, CLIENT);
    return (await this.lab.run(node, ["node", file, at, type, name])).stdout.trim();
  }
}
