/**
 * Real packets for policy probes. Plain JavaScript for Node, so that it shares nothing with what it tests.
 *
 *   probes.mjs answer PORT...   HTTP, and UDP that echoes, on every port, both families; prints "ready"
 *   probes.mjs ask JSON         [{ proto, address, port, waitMs, http? }]: all at once; prints a JSON list of numbers
 *
 * A TCP probe is an HTTP request; its number is the status of the answer. That of a UDP one is 200 when its echo came back, of an ICMP
 * one when ping says so. 0: nothing got through. Datagrams are repeated until their time is up: a lost packet is no verdict.
 */
import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { createServer, request } from "node:http";

const RETRY_MS = 150;
const [command, ...args] = process.argv.slice(2);

async function answer(ports) {
  await Promise.all(ports.map(Number).flatMap((port) => [answerTcp(port), answerUdp(port)]));
  console.log("ready");
}

function answerTcp(port) {
  const server = createServer((_, response) => response.end("hello"));
  return new Promise((resolve) => server.listen(port, "::", resolve));
}

function answerUdp(port) {
  const socket = createSocket("udp6");
  socket.on("message", (message, from) => socket.send(message, from.port, from.address));
  return new Promise((resolve) => socket.bind(port, "::", resolve));
}

function askTcp({ address, port, http = {} }, done) {
  const { method = "GET", path = "/", host, headers = {} } = http;
  const asked = request({
    host: address,
    port,
    method,
    path,
    agent: false,
    headers: { ...(host && { host }), ...headers },
  });
  asked.on("error", () => {});
  asked.on("response", (response) => {
    response.resume();
    done(response.statusCode);
  });
  asked.end();
  return () => asked.destroy();
}

function askUdp({ address, port }, done) {
  const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
  socket.on("error", () => {});
  socket.once("message", () => done(200));
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
  ping.once("exit", (code) => code === 0 && done(200));
  return () => ping.kill();
}

const ASK = { TCP: askTcp, UDP: askUdp, ICMP: askIcmp, ICMPv6: askIcmp };

/** The answer that came within its time, or 0. */
function ask(probe) {
  return new Promise((resolve) => {
    const end = (result) => {
      clearTimeout(timer);
      stop();
      resolve(result);
    };
    const timer = setTimeout(() => end(0), probe.waitMs);
    const stop = ASK[probe.proto](probe, end);
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
