/**
 * Small programs that make traffic, for the demo and the tests. Plain JavaScript for Node, so that they share nothing with what
 * they test.
 *
 *   traffic.mjs serve PORT NAME         HTTP that answers "hello from NAME" and who asked; every other TCP client gets an echo
 *   traffic.mjs hold ADDRESS PORT       one TCP connection, a line each 100 ms; prints "echo N" for each that comes back
 *   traffic.mjs send ADDRESS PORT MB    sends so many megabytes over one connection and prints the sum of what came back
 *   traffic.mjs udp-serve PORT          sends every datagram back
 *   traffic.mjs udp ADDRESS PORT OCTETS one datagram; prints "echo" when it comes back within two seconds
 */
import { createHash, randomBytes } from "node:crypto";
import { createSocket } from "node:dgram";
import { connect, createServer } from "node:net";

const [command, ...args] = process.argv.slice(2);

/** The first octets decide: a request gets a page, anything else comes back as it is. */
function serve(port, name) {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", (first) => {
      if (!/^(GET|HEAD) /.test(first.toString("latin1"))) {
        socket.write(first);
        socket.pipe(socket);
        return;
      }
      const body = `hello from ${name} to ${socket.remoteAddress?.replace("::ffff:", "")}\n`;
      socket.end(
        `HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`,
      );
    });
  });
  server.listen(Number(port), "::", () => console.log("ready"));
}

function hold(address, port) {
  let sent = 0;
  const socket = connect(Number(port), address, () => {
    setInterval(() => socket.write(`line ${++sent}\n`), 100);
  });
  let rest = "";
  socket.on("data", (text) => {
    const lines = (rest + text.toString()).split("\n");
    rest = lines.pop();
    for (const line of lines) console.log(line.replace("line", "echo"));
  });
  socket.on("error", (error) => end(`error ${error.code}`));
  socket.on("close", () => end("closed"));
}

function end(word) {
  console.log(word);
  process.exit(1);
}

function send(address, port, megabytes) {
  const block = randomBytes(1 << 20);
  const wanted = Number(megabytes) * block.length;
  const [out, back] = [createHash("sha256"), createHash("sha256")];
  let received = 0;
  let left = Number(megabytes);
  const socket = connect(Number(port), address, () => more());
  const more = () => {
    while (left > 0) {
      left--;
      out.update(block);
      if (!socket.write(block)) return void socket.once("drain", more);
    }
  };
  socket.on("data", (data) => {
    back.update(data);
    received += data.length;
    if (received < wanted) return;
    const same = out.digest("hex") === back.digest("hex");
    console.log(same ? `same ${received}` : "different");
    process.exit(same ? 0 : 1);
  });
  socket.on("error", (error) => end(`error ${error.code}`));
  socket.on("close", () => end("closed"));
}

function udpServe(port) {
  const socket = createSocket("udp6");
  socket.on("message", (message, from) => socket.send(message, from.port, from.address));
  socket.bind(Number(port), "::", () => console.log("ready"));
}

function udp(address, port, octets) {
  const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
  const message = randomBytes(Number(octets));
  socket.on("message", (back) => {
    console.log(back.equals(message) ? "echo" : "different");
    process.exit(back.equals(message) ? 0 : 1);
  });
  socket.send(message, Number(port), address);
  setTimeout(() => end("silence"), 2_000);
}

const commands = { serve, hold, send, "udp-serve": udpServe, udp };
if (!commands[command]) end(`usage: traffic.mjs ${Object.keys(commands).join("|")} ...`);
commands[command](...args);
