import { describe, expect, it } from "vitest";
import { describeErrno, FfiError, nameOfErrno } from "../../ffi/errno.ts";
import { hasBrokenSegmentation, kernelVersion, parseKernelVersion } from "../../ffi/kernel.ts";

describe("kernel versions", () => {
  it.each([
    ["6.18.44-rpi-v8", 6_018_044],
    ["5.10.0-30-arm64", 5_010_000],
    ["7.1-rc3", 7_001_000],
    ["7.1.4\n", 7_001_004],
    ["", 0],
    ["linux", 0],
    ["6", 0],
  ])("%j is %d", (release, version) => expect(parseKernelVersion(release)).toBe(version));

  it("the running kernel has one", () => expect(kernelVersion()).toBeGreaterThan(3_000_000));

  it.each([
    ["6.18.44", false],
    ["7.0.0", true],
    ["7.1.4", true],
    ["7.1.5", false],
    ["7.2.0", false],
  ])("runs of equal datagrams are damaged by Linux %s: %s", (release, isBroken) => {
    expect(hasBrokenSegmentation(parseKernelVersion(release))).toBe(isBroken);
  });
});

describe("errno names", () => {
  it("are given for either sign, and a number where there is no name", () => {
    expect(nameOfErrno(1)).toBe("EPERM");
    expect(nameOfErrno(-1)).toBe("EPERM");
    expect(nameOfErrno(999)).toBe("errno 999");
    expect(describeErrno(-13)).toBe("permission denied (EACCES)");
    expect(new FfiError("EDGE_X", "Cannot", -13)).toMatchObject({ code: "EDGE_X", errno: 13, message: "Cannot" });
  });
});
