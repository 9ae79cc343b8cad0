/**
 * Real packets for policy probes. Plain JavaScript for Node, so that it shares nothing with what it tests.
 *
 *   probes.mjs answer PORT...   TCP that accepts and UDP that echoes on every port, both families; prints "ready"
 *   probes.mjs ask JSON         [{ proto, address, port, waitMs }]: all at once; prints a JSON list of true (it got through) and false
 *
 * A TCP probe got through when the server's greeting arrived, a UDP one when its echo did, an ICMP one when ping says so. Each is
 * repeated until its time is up: a lost packet is no verdict.
 */
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { connect, createServer } from "node:net";

const RETRY_MS = 150;
const [command, ...args] = process.argv.slice(2);

async function answer(ports) {
  await Promise.all(ports.map(Number).flatMap((port) => [answerTcp(port), answerUdp(port)]));
  console.log("ready");
}

function answerTcp(port) {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.end("hello");
  });
  return new Promise((resolve) => server.listen(port, "::", resolve));
}

function answerUdp(port) {
  const socket = createSocket("udp6");
  socket.on("message", (message, from) => socket.send(message, from.port, from.address));
  return new Promise((resolve) => socket.bind(port, "::", resolve));
}

function askTcp({ address, port }, done) {
  const socket = connect({ host: address, port });
  socket.on("error", () => {});
  socket.once("data", done);
  return () => socket.destroy();
}

function askUdp({ address, port }, done) {
  const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
  socket.on("error", () => {});
  socket.once("message", done);
  const send = () => socket.send("hello", port, address);
  send();
  const timer = setInterval(send, RETRY_MS);
  return () => {
    clearInterval(timer);
    socket.close();
  };
}

function askIcmp({ address, waitMs }, done) {
  const ping = spawn("ping", ["-c", "1", "-W", String(waitMs / 1000), address], { stdio: "ignore" });
  ping.once("exit", (code) => code === 0 && done());
  return () => ping.kill();
}

const ASK = { TCP: askTcp, UDP: askUdp, ICMP: askIcmp, ICMPv6: askIcmp };

/** True when it got through within its time. */
function ask(probe) {
  return new Promise((resolve) => {
    const end = (result) => {
      clearTimeout(timer);
      stop();
      resolve(result);
    };
    const timer = setTimeout(() => end(false), probe.waitMs);
    const stop = ASK[probe.proto](probe, () => end(true));
  });
}

if (command === "answer") await answer(args);
else if (command === "ask") {
  console.log(JSON.stringify(await Promise.all(JSON.parse(args[0]).map(ask))));
  process.exit(0);
} else {
  console.log("usage: probes.mjs answer PORT... | ask JSON");
  process.exit(2);
}
