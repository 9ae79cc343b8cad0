/**
 * A name server with a few fixed answers. Plain JavaScript for Node, so that it shares nothing with what it tests.
 *
 *   dns_server.mjs ADDRESS NAME=IPV4 ...   UDP and TCP port 53; NXDOMAIN for every other name; prints "asked NAME" for each question
 */
import { createSocket } from "node:dgram";
import { createServer } from "node:net";

const [address, ...pairs] = process.argv.slice(2);
const names = new Map(pairs.map((pair) => pair.split("=")));

/** The answer to a message with one question, or nothing. */
function answerTo(query) {
  let at = 12;
  const labels = [];
  while (query[at] > 0) {
    labels.push(query.toString("latin1", at + 1, at + 1 + query[at]));
    at += 1 + query[at];
  }
  const end = at + 5;
  const type = query.readUInt16BE(at + 1);
  const name = labels.join(".").toLowerCase();
  console.log(`asked ${name}`);
  const found = names.get(name);
  const records = found !== undefined && type === 1 ? [found] : [];
  const header = Buffer.from(query.subarray(0, 12));
  header.writeUInt16BE(0x8180 | (found === undefined ? 3 : 0), 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(records.length, 6);
  header.writeUInt32BE(0, 8);
  const answers = records.map((ip) =>
    Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...ip.split(".").map(Number)])
  );
  return Buffer.concat([header, query.subarray(12, end), ...answers]);
}

const udp = createSocket("udp4");
udp.on("message", (query, from) => udp.send(answerTo(query), from.port, from.address));
const tcp = createServer((socket) => {
  socket.on("error", () => {});
  socket.on("data", (data) => {
    const answer = answerTo(data.subarray(2));
    socket.write(Buffer.concat([Buffer.from([answer.length >> 8, answer.length & 255]), answer]));
  });
});
udp.bind(53, address, () => tcp.listen(53, address, () => console.log("ready")));
