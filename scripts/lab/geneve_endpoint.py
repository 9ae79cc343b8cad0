#!/usr/bin/env python3
"""The Geneve half of a Cilium node, in user space: a TUN on one side, UDP 6081 on the other.

Stands behind wireguard-go in the interop tests, where the kernel's own geneve device may be missing. It shares no code with
edgemesh, checks every header that it gets against RFC 8926 and Cilium's use of it (inner Ethernet, VNI = identity of the
sender), and prints one line "fault: ..." for each thing that is wrong, "first: {...}" for the first good one, and on SIGTERM
"counts: {...}".
"""
import argparse
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
ETHERNET, IPV4, IPV6 = 0x6558, 0x0800, 0x86DD

args = argparse.ArgumentParser()
args.add_argument("--tun", required=True)
args.add_argument("--local", required=True, help="our underlay address, where UDP 6081 listens")
args.add_argument("--remote", required=True, help="the other node's underlay address")
args.add_argument("--vni", type=int, required=True, help="our identity, sent")
args.add_argument("--expect-vni", type=int, required=True, help="the other side's identity")
args.add_argument("--address", action="append", default=[], help="address of the TUN")
args.add_argument("--route", action="append", default=[], help="prefix behind the TUN")
args.add_argument("--mtu", type=int, default=1355)
args = args.parse_args()

counts = {"received": 0, "sent": 0, "faults": 0, "largest": 0}


def fault(text):
    counts["faults"] += 1
    print("fault: " + text, flush=True)


def inner_of(datagram):
    """The IP packet inside, or None and a fault."""
    if len(datagram) < 8:
        return fault("datagram of %d octets" % len(datagram))
    first, flags, protocol, vni_and_rest = struct.unpack("!BBHI", datagram[:8])
    options = (first & 0x3F) * 4
    if first >> 6 != 0:
        return fault("Geneve version %d" % (first >> 6))
    if flags & 0x3F:
        return fault("reserved bits set in flags %#x" % flags)
    if vni_and_rest & 0xFF:
        return fault("reserved octet after the VNI is %#x" % (vni_and_rest & 0xFF))
    if flags & 0x80:
        return fault("control message")
    if protocol != ETHERNET:
        return fault("protocol %#06x, not Ethernet" % protocol)
    if vni_and_rest >> 8 != args.expect_vni:
        return fault("VNI %d, expected %d" % (vni_and_rest >> 8, args.expect_vni))
    frame = datagram[8 + options :]
    if len(frame) < 14:
        return fault("Ethernet frame of %d octets" % len(frame))
    ether_type = struct.unpack("!H", frame[12:14])[0]
    packet = frame[14:]
    if ether_type == IPV4 and packet[:1] and packet[0] >> 4 == 4:
        length = struct.unpack("!H", packet[2:4])[0]
    elif ether_type == IPV6 and packet[:1] and packet[0] >> 4 == 6:
        length = struct.unpack("!H", packet[4:6])[0] + 40
    else:
        return fault("EtherType %#06x with IP version %s" % (ether_type, packet[:1].hex()))
    if length != len(packet):
        return fault("IP length %d in a frame with %d octets" % (length, len(packet)))
    if counts["received"] == 0:
        print("first: " + json.dumps({"vni": vni_and_rest >> 8, "options": options, "to": frame[:6].hex(), "from": frame[6:12].hex()}), flush=True)
    counts["received"] += 1
    counts["largest"] = max(counts["largest"], len(packet))
    return packet


def wrapped(packet):
    ether_type = IPV4 if packet[0] >> 4 == 4 else IPV6
    return struct.pack("!BBHI", 0, 0, ETHERNET, args.vni << 8) + bytes(12) + struct.pack("!H", ether_type) + packet


tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", args.tun.encode(), IFF_TUN | IFF_NO_PI))
for command in (
    [["link", "set", args.tun, "mtu", str(args.mtu), "up"]]
    + [["addr", "add", address, "dev", args.tun] + (["nodad"] if ":" in address else []) for address in args.address]
    + [["route", "add", prefix, "dev", args.tun] for prefix in args.route]
):
    subprocess.run(["ip"] + command, check=True)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
udp.bind((args.local, 6081))


def stop(*_):
    print("counts: " + json.dumps(counts), flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    for source in select.select([tun, udp], [], [])[0]:
        if source is udp:
            datagram, sender = udp.recvfrom(65535)
            if sender[0] != args.remote:
                fault("datagram from %s" % sender[0])
                continue
            packet = inner_of(datagram)
            if packet:
                os.write(tun, packet)
        else:
            packet = os.read(tun, 65535)
            if packet[0] >> 4 == 6 and packet[24] == 0xFF:
                continue  # the kernel's own multicast: router solicitations and the like
            udp.sendto(wrapped(packet), (args.remote, 6081))
            counts["sent"] += 1
